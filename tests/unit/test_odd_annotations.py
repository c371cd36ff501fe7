"""Annotation files as exports and hands leave them: other encodings, slips, ids as text, missing names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import annotation_trees as trees
from domainbridge.build.annotations import annotation_place
from domainbridge.config.domains import SourceConfig
from domainbridge.data.annotations.find import locate
from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.annotations.listing import list_annotations
from domainbridge.data.folder import FolderRule, Listing
from domainbridge.data.index_image import label_size, read_index_image
from domainbridge.errors import DataError

Change = Callable[[Path], None]


def read(images: Path, labels: Path) -> tuple[Listing, np.ndarray, dict[int, int]]:
    """The listing, the train ids of the first image, and the colors without a name."""
    place = locate(labels)
    assert place is not None, "no format"
    listing = list_annotations(images, *place, FolderRule())
    assert listing.labels is not None
    label, unnamed = AnnotationLabels(*place, {"background": 0, "crop": 1, "weed": 2}, 0).look(listing.labels[0])
    return listing, label, dict(unnamed)


def classes(label: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(label)}


def edited(name: str, change: Callable[[Any], Any]) -> Change:
    """Change the content of a JSON file."""

    def apply(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        trees.save(root / name, content)

    return apply


def replaced(name: str, old: str, new: str) -> Change:
    def apply(root: Path) -> None:
        path = root / name
        path.write_text(path.read_text().replace(old, new))

    return apply


def in_utf16(*names: str) -> Change:
    def apply(root: Path) -> None:
        for path in (path for name in names for path in root.glob(name)):
            text = path.read_text().replace('<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>')
            path.write_bytes(text.encode("utf-16"))

    return apply


def shapes_of(content: dict[str, Any], **changes: Any) -> None:
    content["shapes"][0].update(changes)


@pytest.mark.parametrize(
    ("tree", "labels", "change", "expected", "note"),
    [
        (trees.labelme, ".", lambda root: trees.save(root / "_classes.json", ["crop", "weed"]), {0, 1, 2}, "_classes"),
        (trees.labelme, ".", in_utf16("*.json"), {0, 1, 2}, None),
        (
            trees.labelme,
            ".",
            edited("a_1.json", lambda c: shapes_of(c, points=[[1, 1], [9, 9]])),
            {0, 2},
            "shapes without area are left out: 1 polygon of fewer than 3 points",
        ),
        (trees.labelme, ".", edited("a_1.json", lambda c: shapes_of(c, shape_type="rotation")), {0, 1, 2}, None),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: [a.update(category_id=str(a["category_id"])) for a in c["annotations"]]),
            {0, 1, 2},
            None,
        ),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: [a.update(image_id=f"{a['image_id']}") for a in c["annotations"]]),
            {0, 1, 2},
            None,
        ),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: c["annotations"][0].update(category_id=9)),
            {0, 2, 255},
            "categories that the file does not list are ignored: id 9 (1 times)",
        ),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: c["annotations"][0]["segmentation"].append([1, 1, 5, 5])),
            {0, 1, 2},
            "polygons of fewer than 3 points are left out: 1",
        ),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: c["annotations"][0].update(segmentation=[[]])),
            {0, 2},
            "polygons of fewer than 3 points are left out: 1",
        ),
        (
            trees.coco,
            "instances.json",
            edited("instances.json", lambda c: [a.update(segmentation=a["segmentation"][0]) for a in c["annotations"]]),
            {0, 1, 2},
            None,
        ),
        (
            trees.coco_panoptic,
            "panoptic.json",
            edited("panoptic.json", lambda c: c["annotations"][0]["segments_info"][0].update(category_id=77)),
            {0, 2, 255},
            "categories that the file does not list are ignored: id 77 (1 times)",
        ),
        (
            trees.yolo,
            "labels",
            replaced("data.yaml", "[crop, weed]", "[crop]"),
            {0, 1, 255},
            "data.yaml does not name are ignored: 1",
        ),
        (trees.yolo, "labels", replaced("labels/train/a_1.txt", "\n1 ", "\n1.0 "), {0, 1, 2}, None),
        (trees.yolo, "labels", in_utf16("labels/train/*.txt", "data.yaml"), {0, 1, 2}, None),
        (trees.cvat_xml, "annotations.xml", in_utf16("annotations.xml"), {0, 1, 2}, None),
        (
            trees.cvat_xml,
            "annotations.xml",
            replaced("annotations.xml", 'name="a_2.jpg"', 'name="a_1.jpg"'),
            {0, 1, 2},
            "images that are listed more than once: 1, e.g. a_1.jpg",
        ),
        (
            trees.supervisely,
            "ds0/ann",
            edited("ds0/ann/a_1.jpg.json", lambda c: c["objects"][0]["points"].pop("interior")),
            {0, 1, 2},
            None,
        ),
    ],
)
def test_what_is_read_and_what_is_said(
    tree: Change, labels: str, change: Change, expected: set[int], note: str | None, tmp_path: Path
) -> None:
    tree(tmp_path)
    change(tmp_path)
    listing, label, _ = read(tmp_path, tmp_path / labels)
    assert classes(label) == expected
    assert not listing.problems
    assert note is None or note in " ".join(listing.notes)


def test_shapes_of_an_image_that_is_listed_twice_are_kept(tmp_path: Path) -> None:
    trees.cvat_xml(tmp_path)
    replaced("annotations.xml", 'name="a_2.jpg"', 'name="a_1.jpg"')(tmp_path)
    head, _, tail = (tmp_path / "annotations.xml").read_text().partition('<image id="1"')
    kept = head.replace('<polygon label="weed"', '<tag label="weed"').replace("</polygon></image>", "</tag></image>")
    (tmp_path / "annotations.xml").write_text(f'{kept}<image id="1"{tail}')
    assert classes(read(tmp_path, tmp_path / "annotations.xml")[1]) == {0, 1, 2}


def test_another_encoding_is_named(tmp_path: Path) -> None:
    trees.labelme(tmp_path)
    text = (tmp_path / "a_1.json").read_text().replace("crop", "Gebäude")
    (tmp_path / "a_1.json").write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match=r"byte 0xe4 is no UTF-8 text; save the file as UTF-8"):
        read(tmp_path, tmp_path)


def test_colors_and_names_of_labelmap(tmp_path: Path) -> None:
    trees.cvat_masks(tmp_path)
    replaced("labelmap.txt", "250,50,83", "250,50,84")(tmp_path)
    *_, unnamed = read(tmp_path / "JPEGImages", tmp_path / "SegmentationClass")
    assert unnamed == {0xFA3253: int(trees.mask("crop").sum())}
    replaced("labelmap.txt", "weed:", "crop:")(tmp_path)
    with pytest.raises(DataError, match="two lines have the name 'crop'"):
        read(tmp_path / "JPEGImages", tmp_path / "SegmentationClass")


def test_sequences_are_no_classes(tmp_path: Path) -> None:
    """Masks of two values in day/ and night/, with the same names: as their images have, so no masks per class."""
    for sequence in ("day", "night"):
        for number in range(2):
            trees.photo(tmp_path / f"images/{sequence}/{number:04}.JPG", number)
            trees.save(tmp_path / f"labels/{sequence}/{number:04}.png", trees.mask("crop").astype(np.uint8))
    rule = SourceConfig(name="s", root=".", images="images", labels="labels")
    assert locate(tmp_path / "labels") is not None
    assert annotation_place(rule, tmp_path / "images", tmp_path / "labels") is None


@pytest.mark.parametrize("shape", [(48, 64, 1), (1, 48, 64)])
def test_an_array_with_an_axis_of_one_holds_ids(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", trees.ids().reshape(shape))
    assert locate(tmp_path) is None
    assert np.array_equal(read_index_image(tmp_path / "a.npy"), trees.ids())
    assert label_size(tmp_path / "a.npy") == (48, 64)
