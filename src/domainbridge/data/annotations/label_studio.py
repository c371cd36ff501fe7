"""Label Studio: its JSON export, with brushes and polygons (also JSON-MIN).

A brush is decoded as label-studio-converter does; every pixel with a value is part of it. Polygons are in percent of
the image; they are filled by pycocotools, as the tool's COCO export is. Of several annotations of a task, later ones
are drawn over earlier ones.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import damage_named, member_name, names_like, read_json_file, whole
from domainbridge.data.annotations.runs import brush_values
from domainbridge.data.annotations.shapes import CocoPolygons, Ellipse, Mask, Points, Shape, polygon_points
from domainbridge.data.storage.virtual import annotation_file, parsed
from domainbridge.errors import DataError

__all__ = ["LabelStudio", "image_names", "task_images"]

_EXPECTED = "a JSON export of Label Studio: a list of tasks with annotations"
_LABELS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels", "labels")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class _Task:
    number: Any
    images: tuple[str, ...]
    results: list[Mapping[str, Any]]
    annotations: int


@register_format("label-studio")
class LabelStudio:
    """One JSON file with tasks."""

    title = "Label Studio"
    background = True

    def find(self, path: Path) -> Path | None:
        files = names_like(path, ".json") if path.is_dir() else [path] if path.suffix.lower() == ".json" else []
        files_here = [file for file in files if file.is_file() and parsed(file, "is label studio", _is_export)]
        if len(files_here) > 1:
            raise DataError(
                f"{path}: {len(files_here)} exports of Label Studio are here; name the one to read in labels"
            )
        return files_here[0] if files_here else None

    def index(self, path: Path) -> Index:
        tasks: dict[str, _Task] = parsed(path, "label studio", _tasks)
        results = [result for task in tasks.values() for result in task.results]
        names = dict.fromkeys(str(name) for result in results for name in _names(result))
        left = Counter(str(result.get("type")) for result in results if not _has_area(result))
        notes = []
        if left:
            notes.append("results without area are left out: " + ", ".join(f"{n} {k}" for k, n in left.most_common()))
        several = sum(task.annotations > 1 for task in tasks.values())
        if several:
            notes.append(f"{several} tasks have several annotations: later ones are drawn over earlier ones")
        skipped = sum(not task.annotations for task in tasks.values())
        if skipped:
            notes.append(f"{skipped} tasks without annotation are left out")
        entries = tuple(Entry(task.images, path / key) for key, task in tasks.items() if task.annotations)
        return Index(tuple(Category(name) for name in names), entries, notes=tuple(notes))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        file = annotation_file(parts[0])
        if file is None:
            raise DataError(f"{parts[0]}: no such file")
        task: _Task | None = parsed(file, "label studio", _tasks).get(parts[0].relative_to(file).as_posix())
        if task is None:
            raise DataError(f"{parts[0]}: {file} has no such task")
        with damage_named(parts[0], "results with original_width, original_height and brushes or polygons"):
            areas = [result for result in task.results if _has_area(result)]
            if not areas:
                raise ValueError("the task has no area, so the size of its image is unknown: leave the image out")
            height, width = _size(areas[0])
            shapes = [(str(name), _shape(r, height, width)) for r in areas for name in _names(r)[:1]]
            return Drawing(height, width, tuple(shapes))


def image_names(given: str) -> tuple[str, ...]:
    """Possible names of an image from its address in a task."""
    address = urlsplit(given.replace("\\", "/"))
    path = parse_qs(address.query).get("d", [address.path])[0]
    path = unquote(path).lstrip("/")
    folder, slash, name = path.rpartition("/")
    short = _UPLOAD_PREFIX.sub("", name)
    return tuple(dict.fromkeys((path, f"{folder}{slash}{short}")))


def task_images(path: Path) -> dict[str, tuple[str, ...]]:
    """Number of a task -> possible names of its image.

    Raises:
        DataError: the file is damaged.
    """
    tasks: dict[str, _Task] = parsed(path, "label studio", _tasks)
    return {str(task.number): task.images for task in tasks.values()}


def _is_export(path: Path) -> bool:
    try:
        content = read_json_file(path, _EXPECTED)
    except DataError:
        return False
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    return "annotations" in content[0] or any(True for _ in _min_results(content[0]))


def _tasks(path: Path) -> dict[str, _Task]:
    content = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        tasks: dict[str, _Task] = {}
        for position, given in enumerate(content):
            task = _task(given, position)
            key = member_name(task.images[0])
            tasks[key if key not in tasks else f"{key}/{position}"] = task
        return tasks


def _task(given: Mapping[str, Any], position: int) -> _Task:
    number = given.get("id", position)
    if "annotations" not in given:  # JSON-MIN
        image = next(
            (value for key, value in given.items() if key in ("image", "img") and isinstance(value, str)), None
        )
        results = list(_min_results(given))
        return _Task(number, image_names(str(image or given["image"])), results, 1 if results else 0)
    data = given["data"]
    image = data.get("image") or next(value for value in data.values() if isinstance(value, str))
    names = image_names(str(image))
    if given.get("file_upload"):
        names = tuple(dict.fromkeys((*image_names(str(given["file_upload"])), *names)))
    done = [a for a in given["annotations"] if not a.get("was_cancelled")]
    results = [{**r, **r["value"]} for a in done for r in a["result"] if isinstance(r.get("value"), dict)]
    return _Task(number, names, results, len(done))


def _min_results(given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for value in given.values():
        if isinstance(value, list):
            yield from (item for item in value if isinstance(item, dict) and "original_width" in item)


def _names(result: Mapping[str, Any]) -> list[Any]:
    return next((list(result[key]) for key in _LABELS if result.get(key)), [])


def _has_area(result: Mapping[str, Any]) -> bool:
    is_area = "rle" in result or "points" in result or "radiusX" in result or ("width" in result and "x" in result)
    return is_area and bool(_names(result))


def _size(result: Mapping[str, Any]) -> tuple[int, int]:
    return whole(result["original_height"], "original_height"), whole(result["original_width"], "original_width")


def _shape(result: Mapping[str, Any], height: int, width: int) -> Shape:
    if _size(result) != (height, width):
        raise ValueError(f"the results of one image have the sizes {_size(result)} and {(height, width)}")
    if "rle" in result:
        values = brush_values(result["rle"], height * width * 4)
        return Mask(values.reshape(height, width, 4)[..., 3] > 0)
    scale = (width / 100, height / 100)
    if "points" in result:
        return CocoPolygons((polygon_points(result["points"]) * scale,))
    if "radiusX" in result:
        center, radii = polygon_points([[result["x"], result["y"]], [result["radiusX"], result["radiusY"]]], 2) * scale
        return Ellipse((center[0], center[1]), (radii[0], radii[1]), float(result.get("rotation") or 0))
    corner, size = polygon_points([[result["x"], result["y"]], [result["width"], result["height"]]], 2) * scale
    return CocoPolygons((_rectangle(corner, size, float(result.get("rotation") or 0)),))


def _rectangle(corner: Points, size: Points, degrees: float) -> Points:
    """Corners of a rectangle, turned clockwise around its upper left corner, as the tool turns it."""
    angle = math.radians(degrees)
    right = np.array([math.cos(angle), math.sin(angle)]) * size[0]
    down = np.array([-math.sin(angle), math.cos(angle)]) * size[1]
    return polygon_points(np.array([corner, corner + right, corner + right + down, corner + down]))
