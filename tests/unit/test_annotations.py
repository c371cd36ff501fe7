"""Annotation formats: exact labels from tiny files in the published layouts, damaged files, random polygons."""

import base64
import io
import json
import pickle
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_tool

from domainbridge.build.datasets import list_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.annotations.find import find_annotations
from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.dataset import FileDataset
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.storage.cache import CacheRule, build_cache
from domainbridge.data.storage.tar import read_bytes, size_and_mtime
from domainbridge.errors import DataError
from domainbridge.tools.convert import Conversion, convert_annotations
from tiny_domain import RECIPE

H, W = 8, 10
CLASSES = ["background", "crack", "traffic light"]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(path)


def png(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array).astype(np.uint8)).save(path)


def text(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def open_labels(root: Path, labels: str, **keys: Any) -> tuple[FileDataset, list[str]]:
    """The source of a recipe, and the problems of its data."""
    tree = {**RECIPE, "label_space": {"name": "mine", "classes": keys.pop("classes", CLASSES)}, "data_root": str(root)}
    tree["sources"] = [{"name": "s", "root": ".", "images": "images", "labels": labels, **keys}]
    tree["targets"] = [{"name": "t", "root": ".", "images": "images"}]
    data, problems = list_data(parse_recipe(tree))
    return data.sources[0], problems


def label(root: Path, labels: str, index: int = 0, **keys: Any) -> np.ndarray:
    data, problems = open_labels(root, labels, **keys)
    assert problems == []
    return pickle.loads(pickle.dumps(data)).load_label(index)  # loader processes get it so


def box(value: int = 1, top: int = 2, left: int = 3, bottom: int = 5, right: int = 7, base: int = 0) -> np.ndarray:
    """``value`` in rows top to bottom and columns left to right, both ends included."""
    expected = np.full((H, W), base, np.uint8)
    expected[top : bottom + 1, left : right + 1] = value
    return expected


SQUARE = [[3, 2], [7, 2], [7, 5], [3, 5]]


def labelme(shapes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": "5.0", "shapes": shapes, "imagePath": "a.png", "imageHeight": H, "imageWidth": W}


def mask_text(mask: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(np.asarray(mask).astype(np.uint8) * 255).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"points": SQUARE, "shape_type": "polygon"}, box()),
        ({"points": [[7, 5], [3, 2]], "shape_type": "rectangle"}, box()),
        ({"points": [[3, 2], [7, 5]], "shape_type": "mask", "mask": mask_text(np.ones((4, 5)))}, box()),
        ({"points": [[5, 4], [5, 6]], "shape_type": "circle"}, None),
        ({"points": [[5, 4]], "shape_type": "point"}, None),
        ({"points": [[0, 0], [9, 7]], "shape_type": "line"}, None),
    ],
)
def test_labelme(tmp_path: Path, shape: dict[str, Any], expected: np.ndarray | None) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.json", labelme([{"label": "Crack", **shape}]))
    if expected is None:
        canvas = Image.new("L", (W, H))
        pen, points = ImageDraw.Draw(canvas), shape["points"]
        if shape["shape_type"] == "line":
            pen.line([tuple(p) for p in points], fill=1, width=10)
        else:
            (x, y), r = points[0], 2 if shape["shape_type"] == "circle" else 5
            pen.ellipse([x - r, y - r, x + r, y + r], fill=1, outline=1)
        expected = np.array(canvas)
    assert np.array_equal(label(tmp_path, "labels"), expected)


def test_categories_background_overlap_and_notes(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    image(tmp_path / "images/b.png")
    lower = {"label": "crack", "points": SQUARE}
    upper = {"label": "Traffic_Light", "points": [[0, 2], [4, 2], [4, 5], [0, 5]]}
    text(tmp_path / "labels/a.json", labelme([lower, upper, {"label": "dog", "points": [[8, 0], [9, 0], [9, 1]]}]))
    text(tmp_path / "labels/lonely.json", labelme([lower]))
    decoded = label(tmp_path, "labels")
    assert decoded[2:6].tolist() == [[2, 2, 2, 2, 2, 1, 1, 1, 0, 0]] * 4
    assert decoded[0, 8:].tolist() == [255, 255]
    notes = " | ".join(open_labels(tmp_path, "labels")[0].notes)
    for part in (
        "pixels without annotation: background",
        "categories without a class, ignored: dog",
        "images without annotation, left out: 1 of 2",
        "annotations without image, left out: 1 of 2, e.g. lonely",
    ):
        assert part in notes
    mapped = label(tmp_path, "labels", label_map={"dog": "crack", "crack": "ignore"}, unannotated="ignore")
    assert mapped[0, 9] == 1
    assert mapped[2, 6] == mapped[7, 0] == 255
    assert label(tmp_path, "labels", classes=["crack", "other"])[7, 0] == 255  # no background class


def test_wrong_keys_are_named_at_once(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.json", labelme([{"label": "crack", "points": SQUARE}]))
    problems = open_labels(tmp_path, "labels", label_map={"crak": "crack", "crack": "crackk"}, unannotated="sky")[1]
    for part in ("no category 'crak'; did you mean crack?", "value 'crackk' of 'crack'", "unannotated: 'sky'"):
        assert part in problems[0]
    assert "is unknown, known are channels" in open_labels(tmp_path, "labels", annotation_format="labelmee")[1][0]
    assert "no category of" in open_labels(tmp_path, "labels", classes=["a", "b"])[1][0]
    assert "no annotation is at" in open_labels(tmp_path, "images", unannotated="crack")[1][0]


def coco(segmentations: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "some/images/a.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "crack"}, {"id": 5, "name": "traffic light"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 1, "segmentation": s, "iscrowd": 0}
            for i, s in enumerate(segmentations)
        ],
        **more,
    }


COMPRESSED = coco_tool.encode(np.asfortranarray(box()))


@pytest.mark.parametrize(
    "segmentation",
    [
        [[3, 2, 8, 2, 8, 6, 3, 6]],
        {"size": [H, W], "counts": [26, 4, 4, 4, 4, 4, 4, 4, 4, 4, 18]},
        {"size": [H, W], "counts": COMPRESSED["counts"].decode()},
    ],
)
def test_coco(tmp_path: Path, segmentation: Any) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "annotations.json", coco([segmentation]))
    assert np.array_equal(label(tmp_path, "annotations.json"), box())
    assert np.array_equal(label(tmp_path, ".", annotation_format="coco", label_map={1: "traffic light"}), box(2))


def test_coco_boxes_are_refused_and_two_files_are_named(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "a.json", coco([[]]))
    assert "boxes are no masks" in open_labels(tmp_path, "a.json")[1][0]
    text(tmp_path / "more/a.json", coco([]))
    text(tmp_path / "more/b.json", coco([]))
    assert "2 COCO files are here (a.json, b.json)" in open_labels(tmp_path, "more")[1][0]


def test_coco_panoptic_and_stuff(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    png(tmp_path / "pan/a.png", np.stack([box(2), box(3), box(0)], axis=2))  # segment 2 + 3 * 256
    segments = [{"id": 770, "category_id": 5}]
    content = coco([])
    content["annotations"] = [{"image_id": 7, "file_name": "a.png", "segments_info": segments}]
    text(tmp_path / "pan.json", content)
    for labels in ("pan", "pan.json"):
        assert np.array_equal(label(tmp_path, labels), box(2, base=255))
    png(tmp_path / "stuff_pixelmaps/a.png", box(5))
    text(tmp_path / "stuff.json", coco([]))
    assert np.array_equal(label(tmp_path, "stuff_pixelmaps"), box(2, base=255))


def test_yolo(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"images/{name}.png")
    text(tmp_path / "labels/a.txt", f"0 {3 / W} {2 / H} {7 / W} {2 / H} {7 / W} {5 / H} {3 / W} {5 / H}\n")
    text(tmp_path / "labels/b.txt", "")
    text(tmp_path / "data.yaml", "names: [crack]\n")
    assert np.array_equal(label(tmp_path, "labels"), box())
    assert not label(tmp_path, "labels", 1).any()
    text(tmp_path / "labels/b.txt", "0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"b.txt.*line 1 has 5 columns, a box; boxes are no masks"):
        open_labels(tmp_path, "labels")[0].load_label(1)


CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>crack</name></label>
<label><name>traffic light</name></label></labels></task></meta>
<image id="0" name="a.png" width="10" height="8">
<box label="traffic light" z_order="2" xtl="0" ytl="0" xbr="4" ybr="8"/>
<polygon label="crack" z_order="1" points="3,2;8,2;8,6;3,6"/>
<mask label="crack" z_order="3" rle="1, 2, 1" left="8" top="0" width="2" height="2"/>
<polyline label="crack" points="0,0;1,1"/></image></annotations>"""


def test_cvat(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "annotations.xml", CVAT)
    expected = box()
    expected[:, :4] = 2
    expected[0, 9] = expected[1, 8] = 1
    assert np.array_equal(label(tmp_path, "annotations.xml"), expected)
    assert "shapes without area are left out: 1 polyline" in " ".join(open_labels(tmp_path, "annotations.xml")[0].notes)


@pytest.mark.parametrize("kind", ["color", "palette", "number"])
def test_labelmap(tmp_path: Path, kind: str) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrack:52,209,183::\n")
    if kind == "number":
        png(tmp_path / "SegmentationClass/a.png", box())
    else:
        png(tmp_path / "SegmentationClass/a.png", np.array([[0, 0, 0], [52, 209, 183]])[box()])
    if kind == "palette":
        with Image.open(tmp_path / "SegmentationClass/a.png") as colors:
            colors.quantize(3).save(tmp_path / "SegmentationClass/a.png")
    assert np.array_equal(label(tmp_path, "SegmentationClass"), box())
    by_color = {"#000000": "crack", "#34d1b7": "traffic light"}  # the user's own map comes first
    if kind == "color":
        assert np.array_equal(label(tmp_path, "SegmentationClass", label_map=by_color), box(2, base=1))


def test_supervisely(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    packed = base64.b64encode(zlib.compress(base64.b64decode(mask_text(np.ones((2, 2)))))).decode()
    holes = [[[4, 3], [6, 3], [6, 4], [4, 4]]]
    objects = [
        {"classTitle": "crack", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": holes}},
        {"classTitle": "traffic light", "geometryType": "bitmap", "bitmap": {"data": packed, "origin": [8, 6]}},
        {"classTitle": "crack", "geometryType": "line", "points": {"exterior": [[0, 0], [1, 1]], "interior": []}},
    ]
    text(tmp_path / "ann/a.png.json", {"size": {"height": H, "width": W}, "objects": objects})
    text(tmp_path / "meta.json", {"classes": [{"title": "crack"}, {"title": "traffic light"}, {"title": "dog"}]})
    expected = box()
    expected[3:5, 4:7] = 0
    expected[6:, 8:] = 2
    assert np.array_equal(label(tmp_path, "ann"), expected)
    assert {"shapes without area are left out: 1 line", "categories without a class, ignored: dog"} <= set(
        open_labels(tmp_path, "ann")[0].notes
    )


def brush(mask: np.ndarray) -> list[int]:
    """The bytes of a brush: a header, then runs of one value and literal values in turn."""
    values = np.repeat(mask.reshape(-1) * 255, 4).tolist()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size:04b}" for size in (2, 3, 7, 15))
    start = 0
    while start < len(values):
        end = next((i for i in range(start, len(values)) if values[i] != values[start]), len(values))
        end = min(end, start + 256)
        if start % 3:
            bits += f"1{2:02b}{end - start - 1:08b}{values[start]:08b}"
        else:
            bits += f"0{2:02b}{end - start - 1:08b}" + "".join(f"{v:08b}" for v in values[start:end])
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_label_studio(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    size = {"original_width": W, "original_height": H}
    strokes = {"type": "brushlabels", **size, "value": {"format": "rle", "rle": brush(box()), "brushlabels": ["crack"]}}
    points = [[80, 0], [100, 0], [100, 25], [80, 25]]
    polygon = {"type": "polygonlabels", **size, "value": {"points": points, "polygonlabels": ["traffic light"]}}
    task = {
        "id": 3,
        "data": {"image": "/data/upload/1/0123abcd-a.png"},
        "annotations": [{"result": [strokes, polygon]}],
    }
    text(tmp_path / "export.json", [task])
    expected = box()
    expected[:2, 8:] = 2
    assert np.array_equal(label(tmp_path, "export.json"), expected)
    text(tmp_path / "min.json", [{"image": "a.png", "tag": [{**size, **strokes["value"]}]}])
    assert np.array_equal(label(tmp_path, "min.json"), box())


def test_label_studio_masks(tmp_path: Path) -> None:
    for name in ("10", "9"):
        image(tmp_path / f"images/{name}.png")
    for task, value in ((1, 255), (2, 0)):
        png(tmp_path / f"masks/task-{task}-annotation-4-by-1-tag-crack-0.png", box(value))
        png(tmp_path / f"masks/task-{task}-annotation-4-by-1-tag-dog-0.png", box(0))
    data = open_labels(tmp_path, "masks")[0]
    assert any("paired in the order of their names, e.g. task 1 with 9.png" in note for note in data.notes)
    by_name = {path.stem: data.load_label(i) for i, path in enumerate(data.images)}
    assert np.array_equal(by_name["9"], box())
    tasks = [{"id": t, "data": {"image": f"{n}.png"}, "annotations": []} for t, n in ((1, "10"), (2, "9"))]
    text(tmp_path / "export.json", tasks)
    position = [path.stem for path in data.images].index("10")
    assert np.array_equal(label(tmp_path, "masks", position), box())
    (tmp_path / "export.json").rename(tmp_path / "masks/export.json")
    assert np.array_equal(label(tmp_path, "masks", position), box()), "the export may lie beside the masks"


@pytest.mark.parametrize("pattern", ["{name}/{image}.png", "{image}_{name}.png"])
def test_one_mask_per_class(tmp_path: Path, pattern: str) -> None:
    for name in ("a_1", "b_1"):
        image(tmp_path / f"images/{name}.png")
        png(tmp_path / "masks" / pattern.format(name="crack", image=name), box(255))
    png(tmp_path / "masks" / pattern.format(name="traffic_light", image="a_1"), box(255, left=7))
    png(tmp_path / "masks" / pattern.format(name="dog", image="b_1"), box(0))
    expected = box()
    expected[2:6, 7] = 2
    assert np.array_equal(label(tmp_path, "masks"), expected)
    data = open_labels(tmp_path, "masks")[0]
    before = read_bytes(data.labels[0]), size_and_mtime(str(data.labels[0]))[0]
    png(tmp_path / "masks" / pattern.format(name="traffic_light", image="a_1"), box(255, left=6))
    assert read_bytes(data.labels[0]) != before[0]
    assert np.array_equal(data.load_label(1), box())


@pytest.mark.parametrize("kind", ["npy", "first.npy", "png", "tif"])
def test_channels(tmp_path: Path, kind: str) -> None:
    image(tmp_path / "images/a.png")
    stack = np.stack([box(0, base=1), box(), box(1, 6, 8, 7, 9)], axis=2)
    path = tmp_path / f"labels/a.{kind[-3:]}"
    path.parent.mkdir()
    if kind == "png":
        png(path, stack * 255)
    elif kind == "tif":
        pages = [Image.fromarray(stack[..., k] * 255) for k in range(3)]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        np.save(path, np.moveaxis(stack, 2, 0) if kind == "first.npy" else stack.astype(np.float32))
    expected = box()
    expected[6:, 8:] = 2
    named = {} if kind.endswith("npy") else {"annotation_format": "channels"}
    assert np.array_equal(label(tmp_path, "labels", **named), expected)


def test_edited_annotations_are_other_data_and_copies_are_of_each_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"images/{name}.png")
    content = coco([[[3, 2, 8, 2, 8, 6, 3, 6]]])
    content["images"].append({"id": 8, "file_name": "b.png", "height": H, "width": W})
    text(tmp_path / "c.json", content)
    text(tmp_path / "data.yaml", "names: [crack, crock]")
    for name in ("a", "b"):
        text(tmp_path / f"labels/{name}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6")
    for labels, edited in (("c.json", "c.json"), ("labels", "data.yaml"), ("labels", "labels/b.txt")):
        data = open_labels(tmp_path, labels)[0]
        copies = build_cache(data, CacheRule(tmp_path / "cache", "lossless"), lambda done: None)
        for index in range(2):
            assert np.array_equal(copies.load_label(index), data.load_label(index))
        before = files_fingerprint(data)
        file = tmp_path / edited
        old = file.read_text()
        new = (
            old.replace("0.5 0.6", "0.6 0.6")
            .replace("[crack, crock]", "[crock, crack]")
            .replace("[3, 2, 8", "[2, 2, 8")
        )
        assert len(new) == len(old)
        file.write_text(new)
        assert files_fingerprint(open_labels(tmp_path, labels)[0]) != before
        file.write_text(old)
        assert files_fingerprint(open_labels(tmp_path, labels)[0]) == before


def test_plain_masks_stay_plain(tmp_path: Path) -> None:
    for name in ("a_x", "b_y"):
        image(tmp_path / f"images/{name}.png")
        png(tmp_path / f"masks/{name}.png", box(2))
    text(tmp_path / "masks/notes.json", {"shapes": 1, "imagePath": 2})
    data, problems = open_labels(tmp_path, "masks")
    assert problems == []
    assert not isinstance(data.decoder, AnnotationLabels)
    assert np.array_equal(data.load_label(0), box(2))


def test_convert(tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "annotations.json", coco([[[3, 2, 8, 2, 8, 6, 3, 6]]]))
    out = tmp_path / "out"
    count, _ = convert_annotations(
        None, tmp_path / "annotations.json", tmp_path / "images", Conversion(out), lambda done, total: None
    )
    assert count == 1
    assert (out / "classes.txt").read_text() == "background\ncrack\ntraffic light\n"
    assert np.array_equal(np.array(Image.open(out / "labels/a.png")), box())


def test_found_says_what_is_there(tmp_path: Path) -> None:
    text(tmp_path / "annotations.json", coco([]))
    annotations = find_annotations(tmp_path / "annotations.json")
    assert annotations is not None
    assert (annotations.format, annotations.num_images, annotations.categories) == (
        "coco",
        1,
        ("crack", "traffic light"),
    )
    image(tmp_path / "plain/a.png")
    assert find_annotations(tmp_path / "plain") is None


corners = st.lists(st.tuples(st.floats(-3, W + 3, width=32), st.floats(-3, H + 3, width=32)), min_size=3, max_size=8)
AGAIN = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@AGAIN
@given(corners)
def test_random_polygons_are_filled_as_the_tools_do(tmp_path: Path, points: list[tuple[float, float]]) -> None:
    image(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.json", labelme([{"label": "crack", "points": points}]))
    canvas = Image.new("L", (W, H))
    ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
    decoder = AnnotationLabels("labelme", tmp_path / "labels", {"crack": 1}, 0)
    assert np.array_equal(decoder.read(tmp_path / "labels/a.json"), np.array(canvas))
    flat = [value for point in points for value in point]
    name = f"{abs(hash(tuple(flat)))}.json"
    text(tmp_path / name, coco([[flat]]))
    with warnings.catch_warnings():  # of pycocotools about NumPy 2
        warnings.simplefilter("ignore")
        expected = coco_tool.decode(coco_tool.merge(coco_tool.frPyObjects([flat], H, W)))
    decoder = AnnotationLabels("coco", tmp_path / name, {"crack": 1}, 0)
    assert np.array_equal(decoder.read(tmp_path / name / "some/images/a.png"), expected)


NEW = ["", "NaN", "-1", "99999999999", "null", '"x"', "[]", "{}", "1e999", "\x00", "0.5"]


def write_labelme(root: Path) -> tuple[Path, str]:
    text(root / "labels/a.json", labelme([{"label": "crack", "points": SQUARE, "shape_type": "polygon"}]))
    return root / "labels/a.json", "labels"


def write_coco(root: Path) -> tuple[Path, str]:
    text(root / "c.json", coco([[[3, 2, 8, 2, 8, 6]], {"size": [H, W], "counts": COMPRESSED["counts"].decode()}]))
    return root / "c.json", "c.json"


def write_cvat(root: Path) -> tuple[Path, str]:
    text(root / "c.xml", CVAT)
    return root / "c.xml", "c.xml"


def write_yolo(root: Path) -> tuple[Path, str]:
    text(root / "data.yaml", "names: {0: crack}\n")
    text(root / "labels/a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6\n")
    return root / "labels/a.txt", "labels"


def write_label_studio(root: Path) -> tuple[Path, str]:
    value = {"format": "rle", "rle": brush(box()), "brushlabels": ["crack"]}
    result = {"type": "brushlabels", "original_width": W, "original_height": H, "value": value}
    text(root / "e.json", [{"id": 3, "data": {"image": "a.png"}, "annotations": [{"result": [result]}]}])
    return root / "e.json", "e.json"


def write_supervisely(root: Path) -> tuple[Path, str]:
    packed = base64.b64encode(zlib.compress(base64.b64decode(mask_text(np.ones((2, 2)))))).decode()
    objects = [
        {"classTitle": "crack", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": []}},
        {"classTitle": "crack", "geometryType": "bitmap", "bitmap": {"data": packed, "origin": [8, 6]}},
    ]
    text(root / "ann/a.png.json", {"size": {"height": H, "width": W}, "objects": objects})
    return root / "ann/a.png.json", "ann"


def write_panoptic(root: Path) -> tuple[Path, str]:
    png(root / "pan/a.png", np.stack([box(2), box(3), box(0)], axis=2))
    annotations = [{"image_id": 7, "file_name": "a.png", "segments_info": [{"id": 770, "category_id": 1}]}]
    text(root / "pan.json", coco([], annotations=annotations))
    return root / "pan.json", "pan.json"


@pytest.mark.parametrize("number", ["99999999999770", "-770", "1" + 30 * "0"])
def test_a_segment_that_no_pixel_can_have(number: str, tmp_path: Path) -> None:
    image(tmp_path / "images/a.png")
    path, labels = write_panoptic(tmp_path)
    path.write_text(path.read_text().replace("770", number))
    listed, _ = open_labels(tmp_path, labels)
    with pytest.raises(DataError, match=r"pixels have a segment, such as 770, that .*pan.json does not list"):
        listed.load_label(0)


def write_labelmap(root: Path) -> tuple[Path, str]:
    png(root / "masks/a.png", np.array([[0, 0, 0], [52, 209, 183]])[box()])
    text(root / "labelmap.txt", "background:0,0,0::\ncrack:52,209,183::\n")
    return root / "labelmap.txt", "masks"


WRITERS = [
    write_labelme, write_coco, write_cvat, write_yolo, write_label_studio, write_supervisely, write_panoptic,
    write_labelmap,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
@AGAIN
@given(st.data())
def test_damaged_files_give_one_error(tmp_path: Path, write: Callable[[Path], tuple[Path, str]], data: Any) -> None:
    image(tmp_path / "images/a.png")
    path, labels = write(tmp_path)
    content = path.read_text()
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(start + 6, len(content))))
    new = data.draw(st.sampled_from(NEW))
    path.write_text(content[:start] + new + content[end:] if data.draw(st.booleans()) else content[:start])
    listed, problems = open_labels(tmp_path, labels)
    assert all("Traceback" not in problem for problem in problems)
    messages: list[str] = []
    for index in range(len(listed)):
        try:
            listed.load_label(index)
        except DataError as error:
            messages.append(str(error))
    name = "a.png" if write is write_labelmap else path.name  # without a labelmap, colors have no meaning
    assert all(path.name in message or name in message for message in messages)
