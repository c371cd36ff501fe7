"""Small data sets in the published layouts of annotation tools: three images of 64x48 with a crop and a weed each."""

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
NAMES = ("crop", "weed")
BOXES = {"crop": (6, 8, 30, 40), "weed": (36, 10, 60, 30)}
"""Left, top, right, bottom of each rectangle."""
STEMS = ("a_1", "a_2", "b_1")


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for index, (left, top, right, bottom) in enumerate(BOXES.values()):
        image[top:bottom, left:right, index] //= 4
    Image.fromarray(image).save(path, quality=90)


def photos(folder: Path) -> None:
    for seed, stem in enumerate(STEMS):
        photo(folder / f"{stem}.jpg", seed)


def mask(name: str) -> np.ndarray:
    left, top, right, bottom = BOXES[name]
    result = np.zeros((HEIGHT, WIDTH), bool)
    result[top:bottom, left:right] = True
    return result


def ids() -> np.ndarray:
    return (mask("crop") * 1 + mask("weed") * 2).astype(np.uint8)


def corners(name: str) -> list[list[float]]:
    left, top, right, bottom = BOXES[name]
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def labelme(root: Path) -> None:
    photos(root)
    for stem in STEMS:
        shapes = [{"label": name, "points": corners(name), "shape_type": "polygon", "flags": {}} for name in NAMES]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{stem}.jpg", "imageData": None}
        save(root / f"{stem}.json", content | {"imageHeight": HEIGHT, "imageWidth": WIDTH})


def _coco_images() -> list[dict[str, Any]]:
    return [{"id": n, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT} for n, stem in enumerate(STEMS, 1)]


def coco(root: Path) -> None:
    photos(root / "images")
    annotations = []
    for image in range(1, len(STEMS) + 1):
        for category, name in enumerate(NAMES, 1):
            left, top, right, bottom = BOXES[name]
            flat = [number for point in corners(name) for number in point]
            annotation = {"id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
            box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            annotations.append(annotation | box | {"segmentation": [flat]})
    categories = [{"id": number, "name": name, "supercategory": "plant"} for number, name in enumerate(NAMES, 1)]
    save(root / "instances.json", {"images": _coco_images(), "annotations": annotations, "categories": categories})


def coco_panoptic(root: Path) -> None:
    photos(root / "images")
    values = np.where(ids() > 0, ids().astype(np.int32) * 300, 7)
    colors = np.stack([values % 256, values // 256 % 256, values // 65536], -1).astype(np.uint8)
    annotations = []
    for number, stem in enumerate(STEMS, 1):
        save(root / f"panoptic/{stem}.png", colors)
        segments = [{"id": 300 * category, "category_id": category} for category in (1, 2)]
        segments.append({"id": 7, "category_id": 3})
        annotations.append({"image_id": number, "file_name": f"{stem}.png", "segments_info": segments})
    names = enumerate((*NAMES, "soil"), 1)
    categories = [{"id": number, "name": name, "isthing": 1, "color": [9 * number, 0, 0]} for number, name in names]
    save(root / "panoptic.json", {"images": _coco_images(), "annotations": annotations, "categories": categories})


def yolo(root: Path) -> None:
    photos(root / "images/train")
    save(root / "data.yaml", "train: images/train\nnames: [crop, weed]\n")
    lines = []
    for number, name in enumerate(NAMES):
        points = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners(name))
        lines.append(f"{number} {points}")
    for stem in STEMS:
        save(root / f"labels/train/{stem}.txt", "\n".join(lines) + "\n")


def cvat_xml(root: Path) -> None:
    photos(root / "images")
    labels = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in NAMES)
    images = ""
    for number, stem in enumerate(STEMS):
        shapes = ""
        for name in NAMES:
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in corners(name))
            shapes += f'<polygon label="{name}" source="manual" occluded="0" points="{points}" z_order="0"></polygon>'
        images += f'<image id="{number}" name="{stem}.jpg" width="{WIDTH}" height="{HEIGHT}">{shapes}</image>'
    meta = f"<meta><job><labels>{labels}</labels></job></meta>"
    save(
        root / "annotations.xml",
        f'<?xml version="1.0"?><annotations><version>1.1</version>{meta}{images}</annotations>',
    )


def cvat_masks(root: Path) -> None:
    photos(root / "JPEGImages")
    save(
        root / "labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncrop:250,50,83::\nweed:52,209,183::\n",
    )
    colors = np.array([[0, 0, 0], [250, 50, 83], [52, 209, 183]], np.uint8)
    for stem in STEMS:
        save(root / f"SegmentationClass/{stem}.png", colors[ids()])
        save(root / f"SegmentationObject/{stem}.png", colors[ids()])
    save(root / "ImageSets/Segmentation/default.txt", "\n".join(STEMS) + "\n")


def voc(root: Path) -> None:
    photos(root / "JPEGImages")
    for stem in STEMS:
        path = root / f"SegmentationClass/{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = ids()
        values[0] = 255
        painted = Image.fromarray(values)
        painted.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 756 + [224, 224, 192])
        painted.save(path)
    save(root / "ImageSets/Segmentation/train.txt", "\n".join(STEMS) + "\n")


def supervisely(root: Path) -> None:
    photos(root / "ds0/img")
    classes = [{"title": name, "shape": "any", "color": "#208020", "id": n} for n, name in enumerate(NAMES)]
    save(root / "meta.json", {"classes": classes, "tags": []})
    left, top, right, bottom = BOXES["weed"]
    buffer = io.BytesIO()
    Image.fromarray(np.full((bottom - top, right - left), 255, np.uint8)).save(buffer, format="PNG")
    bitmap = {"data": base64.b64encode(zlib.compress(buffer.getvalue())).decode(), "origin": [left, top]}
    exterior = [[round(x), round(y)] for x, y in corners("crop")]
    objects = [
        {"classTitle": "crop", "geometryType": "polygon", "points": {"exterior": exterior, "interior": []}},
        {"classTitle": "weed", "geometryType": "bitmap", "bitmap": bitmap},
    ]
    for stem in STEMS:
        content = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        save(root / f"ds0/ann/{stem}.jpg.json", content)


def label_studio(root: Path) -> None:
    photos(root / "images")
    tasks = []
    for number, stem in enumerate(STEMS):
        result = []
        for name in NAMES:
            points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in corners(name)]
            value = {"points": points, "closed": True, "polygonlabels": [name]}
            sizes = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
            result.append({"type": "polygonlabels", "from_name": "label", "to_name": "image", "value": value} | sizes)
        data = {"image": f"/data/upload/1/7e1f0a2b-{stem}.jpg"}
        tasks.append({"id": number + 1, "data": data, "annotations": [{"id": number + 10, "result": result}]})
        (root / f"images/{stem}.jpg").rename(root / f"images/7e1f0a2b-{stem}.jpg")
    save(root / "project-1.json", tasks)


def label_studio_png(root: Path) -> None:
    photos(root / "images")
    for number in range(len(STEMS)):
        for name in NAMES:
            file = f"task-{number + 1}-annotation-{number + 9}-by-1-tag-{name}-0.png"
            save(root / "masks" / file, mask(name).astype(np.uint8) * 255)


def mask_per_class(root: Path) -> None:
    photos(root / "images")
    for stem in STEMS:
        for name in NAMES:
            save(root / f"masks/{name}/{stem}.png", mask(name).astype(np.uint8) * 255)


def channels(root: Path) -> None:
    photos(root / "images")
    (root / "masks").mkdir()
    for stem in STEMS:
        layers = [mask("crop"), mask("weed"), ids() == 0]
        np.save(root / f"masks/{stem}.npy", np.stack(layers, -1).astype(np.uint8))


def equal_channels(root: Path) -> None:
    photos(root / "images")
    for stem in STEMS:
        save(root / f"labels/{stem}.png", np.repeat(ids()[..., None], 3, 2))


def numpy_ids(root: Path) -> None:
    photos(root / "images")
    (root / "labels").mkdir()
    for stem in STEMS:
        np.save(root / f"labels/{stem}.npy", ids().astype(np.int32))


def gif(root: Path) -> None:
    photos(root / "images")
    for stem in STEMS:
        path = root / f"labels/{stem}.gif"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(ids()).save(path)


TREES: dict[str, Callable[[Path], None]] = {
    "labelme": labelme,
    "coco": coco,
    "coco-panoptic": coco_panoptic,
    "yolo": yolo,
    "cvat-xml": cvat_xml,
    "cvat-masks": cvat_masks,
    "voc": voc,
    "supervisely": supervisely,
    "label-studio": label_studio,
    "label-studio-png": label_studio_png,
    "mask-per-class": mask_per_class,
    "channels": channels,
    "equal-channels": equal_channels,
    "numpy": numpy_ids,
    "gif": gif,
}
