"""COCO: one JSON file about many images, with polygons or run-length encoded masks (instances and stuff).

Polygons are filled by pycocotools. Crowds are drawn like other annotations. Annotations are drawn in the order of
the file.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import (
    damage_named,
    images_listed_twice,
    keys_of,
    member_name,
    names_like,
    read_json_file,
    whole,
)
from domainbridge.data.annotations.runs import decompressed_counts, mask_of_counts
from domainbridge.data.annotations.shapes import CocoPolygons, Mask, Shape, polygon_points
from domainbridge.data.storage.virtual import annotation_file, parsed
from domainbridge.errors import DataError

__all__ = ["Coco", "category_names", "coco_file", "coco_json", "id_text", "unlisted_categories"]

_EXPECTED = "a COCO file: JSON with images, annotations and categories"


@dataclass(frozen=True)
class _Image:
    height: Any
    width: Any
    file_name: str
    shapes: list[tuple[str, Any]]


@dataclass(frozen=True)
class _Content:
    """A parsed file; ``images`` by the name below the file, segmentations as they are."""

    categories: tuple[Category, ...]
    images: dict[str, _Image]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def coco_json(path: Path) -> tuple[bool, bool]:
    """(is COCO, is panoptic) of a JSON file."""
    if not {"images", "annotations"} <= keys_of(path):
        return False, False

    def panoptic(file: Path) -> bool:
        annotations = read_json_file(file, _EXPECTED)["annotations"]
        return isinstance(annotations, list) and any(
            isinstance(a, dict) and "segments_info" in a for a in annotations[:1]
        )

    return True, bool(parsed(path, "panoptic", panoptic))


def coco_file(path: Path, *, panoptic: bool) -> Path | None:
    """The COCO file that is meant: the path itself, or the only such file in a folder.

    Raises:
        DataError: a folder has several such files.
    """
    files = names_like(path, ".json") if path.is_dir() else [path] if path.suffix.lower() == ".json" else []
    candidates = [file for file in files if file.is_file() and coco_json(file) == (True, panoptic)]
    if len(candidates) > 1:
        raise DataError(
            f"{path}: {len(candidates)} COCO files are here ({', '.join(file.name for file in candidates[:5])}); "
            "name the one to read in labels"
        )
    return candidates[0] if candidates else None


def id_text(value: Any) -> str:
    """An id for comparing: some tools write 1, others "1" or 1.0 for the same thing."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def category_names(content: Any) -> dict[int, str]:
    """Category id -> name, in the order of the file."""
    return {whole(c["id"], "categories: id"): str(c["name"]) for c in content["categories"]}


@register_format("coco")
class Coco:
    """One JSON file in COCO's format."""

    title = "COCO"
    background = True

    def find(self, path: Path) -> Path | None:
        return coco_file(path, panoptic=False)

    def index(self, path: Path) -> Index:
        content = _content(path)
        entries = tuple(Entry((image.file_name,), path / name) for name, image in content.images.items())
        return Index(content.categories, entries, notes=content.notes, problems=content.problems)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        file = annotation_file(parts[0])
        if file is None:
            raise DataError(f"{parts[0]}: no such file")
        image = _content(file).images.get(parts[0].relative_to(file).as_posix())
        if image is None:
            raise DataError(f"{parts[0]}: {file} has no such image")
        with damage_named(parts[0], "whole numbers height and width, and a segmentation in every annotation"):
            height, width = whole(image.height, "height"), whole(image.width, "width")
            shapes = [(name, _shape(segmentation, height, width)) for name, segmentation in image.shapes]
            return Drawing(height, width, tuple(shapes))


def _content(path: Path) -> _Content:
    content: _Content = parsed(path, "coco", _parse)
    return content


def _parse(path: Path) -> _Content:
    content = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        names = category_names(content)
        name_of = {str(number): name for number, name in names.items()}
        images, keys, twins = {}, {}, []
        for given in content["images"]:
            key, file_name = member_name(str(given["file_name"])), str(given["file_name"])
            if key in images:
                twins.append(key)
                keys[id_text(given["id"])] = key
                continue
            keys[id_text(given["id"])] = key
            images[key] = _Image(given.get("height"), given.get("width"), file_name, [])
        left: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        degenerate = 0
        for annotation in content["annotations"]:
            image = images.get(keys.get(id_text(annotation["image_id"]), ""))
            segmentation = annotation.get("segmentation")
            left["without an image"] += image is None
            left["with a box alone"] += image is not None and not segmentation
            if image is None or not segmentation:
                continue
            segmentation, points_or_lines = _compact(segmentation)
            degenerate += points_or_lines
            if isinstance(segmentation, list) and not segmentation:
                continue
            category = id_text(annotation["category_id"])
            unknown[category] += category not in name_of
            image.shapes.append((name_of.get(category, f"id {category}"), segmentation))
    notes = [f"{path.name}: annotations {kind} are left out: {count}" for kind, count in left.items() if count]
    if degenerate:
        notes.append(f"{path.name}: polygons of fewer than 3 points are left out: {degenerate}")
    notes += unlisted_categories(path, unknown)
    notes += images_listed_twice(path, twins)
    problems = []
    if left["with a box alone"] and not any(image.shapes for image in images.values()):
        problems.append(f"{path}: no annotation has a segmentation; boxes are no masks: export polygons or masks")
    categories = tuple(Category(name, number) for number, name in names.items())
    return _Content(categories, images, tuple(notes), tuple(problems))


def unlisted_categories(path: Path, unknown: Counter[str]) -> list[str]:
    """A note about annotations whose category the file does not list."""
    named = ", ".join(f"id {category} ({count} times)" for category, count in (+unknown).most_common(5))
    return [f"{path.name}: categories that the file does not list are ignored: {named}"] if named else []


def _compact(segmentation: Any) -> tuple[Any, int]:
    """Polygons as arrays, which take a quarter of the memory of lists; anything else as it is.

    Polygons of one or two points, slips of the hand in many exports, have no area: they are left out and counted.
    """
    if not isinstance(segmentation, list):
        return segmentation, 0
    if all(isinstance(value, int | float) for value in segmentation):
        segmentation = [segmentation]
    try:
        polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
    except (TypeError, ValueError):
        return segmentation, 0
    areas = [polygon for polygon in polygons if polygon.size not in (0, 2, 4)]
    return areas, len(polygons) - len(areas)


def _shape(segmentation: Any, height: int, width: int) -> Shape:
    if isinstance(segmentation, list):
        return CocoPolygons(tuple(polygon_points(polygon) for polygon in segmentation))
    size = [whole(value, "segmentation.size") for value in segmentation["size"]]
    if size != [height, width]:
        raise ValueError(f"segmentation.size is {size}, the image has {[height, width]}")
    counts = segmentation["counts"]
    return Mask(mask_of_counts(decompressed_counts(counts) if isinstance(counts, str) else counts, width, height).T)
