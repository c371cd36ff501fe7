"""LabelMe: one JSON file per image.

Shapes are filled as ``labelme.utils.shape_to_mask`` fills them: Pillow's ``ImageDraw`` with outline, lines 10 pixels
wide, points as discs of radius 5. Shapes of the kind "mask" are PNGs in base64.
"""

import base64
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import (
    damage_named,
    first_json,
    keys_of,
    names_below,
    read_json_file,
    scanned,
    whole,
)
from domainbridge.data.annotations.shapes import (
    Mask,
    PilCircle,
    PilLine,
    PilPolygon,
    PilRectangle,
    Shape,
    polygon_points,
)
from domainbridge.data.decode import image_size

__all__ = ["LabelMe"]

_EXPECTED = "a LabelMe file: JSON with imageHeight, imageWidth and shapes of label, shape_type and points"
_LINE_WIDTH, _POINT_RADIUS = 10, 5
_POLYGONS = ("polygon", "oriented_rectangle", "rotation")
"""Kinds with the corners of an area; "rotation" is the turned rectangle of X-AnyLabeling."""


@register_format("labelme")
class LabelMe:
    """JSON files of LabelMe, named as their images."""

    title = "LabelMe"
    background = True

    def find(self, path: Path) -> Path | None:
        if path.suffix.lower() == ".json" and path.is_file():
            return path if {"shapes", "imagePath"} <= keys_of(path) else None
        return path if first_json(path, "shapes", "imagePath") is not None else None

    def index(self, path: Path) -> Index:
        folder = path if path.is_dir() else path.parent
        names = [path.name] if path.is_file() else [n for n in names_below(path) if n.lower().endswith(".json")]
        files = [folder / name for name in names]
        categories, notes = scanned(files, lambda file: _drawing(file, (1, 1)))
        sizes = [keys_of(file) for file in files[:3]]
        entries = tuple(Entry((name[: -len(".json")],), file) for name, file in zip(names, files, strict=True))
        needs_image = any("imageHeight" not in keys for keys in sizes)
        return Index(tuple(Category(name) for name in categories), entries, notes=notes, needs_image=needs_image)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        return _drawing(parts[0], image_size(parts[1]) if len(parts) > 1 else None)


def _drawing(path: Path, size: tuple[int, int] | None) -> Drawing:
    content = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        if size is None or content.get("imageHeight") is not None:
            size = whole(content["imageHeight"], "imageHeight"), whole(content["imageWidth"], "imageWidth")
        drawn, left_out = [], []
        for given in content["shapes"]:
            name, shape = _name(given), _shape(given)
            if shape is None:
                left_out.append("polygon of fewer than 3 points")
            else:
                drawn.append((name, shape))
        return Drawing(*size, shapes=tuple(drawn), left_out=tuple(left_out))


def _name(shape: Mapping[str, Any]) -> str:
    name = shape["label"]
    if not isinstance(name, str):
        raise ValueError(f"label: expected a text, found {name!r}")
    return name


def _shape(shape: Mapping[str, Any]) -> Shape | None:
    """The area; None for a polygon of fewer than three points, which has none."""
    kind = shape.get("shape_type") or "polygon"
    if kind in _POLYGONS or (kind == "rectangle" and len(shape["points"]) == 4):
        points = polygon_points(shape["points"], least=0)
        return PilPolygon(points) if len(points) > 2 else None
    points = polygon_points(shape["points"], least=1 if kind in ("point", "points") else 2)
    if kind == "rectangle":
        return PilRectangle(points)
    if kind == "circle":
        return PilCircle((points[0, 0], points[0, 1]), math.dist(points[0], points[1]))
    if kind in ("line", "linestrip"):
        return PilLine(points, _LINE_WIDTH)
    if kind == "point":
        return PilCircle((points[0, 0], points[0, 1]), _POINT_RADIUS)
    if kind == "points":
        return _Points(tuple(PilCircle((x, y), _POINT_RADIUS) for x, y in points.tolist()))
    if kind == "mask":
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True))) as image:
            mask = np.array(image.convert("L")).astype(bool)
        left, top = points[0].astype(int).tolist()
        return Mask(mask, left, top)
    raise ValueError(f"shape_type {kind!r} is unknown")


class _Points:
    """Several discs."""

    def __init__(self, circles: tuple[PilCircle, ...]) -> None:
        self._circles = circles

    def draw(self, canvas: Any, value: int) -> None:
        for circle in self._circles:
            circle.draw(canvas, value)
