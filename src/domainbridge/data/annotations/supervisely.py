"""Supervisely: ``ann/a.jpg.json`` for ``img/a.jpg``, with polygons, rectangles and bitmaps; ``meta.json``.

Polygons are filled as the tool's SDK does: ``cv2.fillPoly``, holes taken out. A bitmap is a PNG, packed by zlib, in
base64, with the place of its corner.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import (
    damage_named,
    first_names,
    keys_of,
    names_below,
    read_json_file,
    scanned,
    whole,
)
from domainbridge.data.annotations.shapes import CvPolygon, Mask, Shape, polygon_points

__all__ = ["Supervisely"]

_EXPECTED = "a Supervisely file: JSON with size and objects of classTitle and geometryType"
_META = "meta.json"
_MOST_BYTES = 2**28


@register_format("supervisely")
class Supervisely:
    """A project, a data set of it, or a folder ``ann``."""

    title = "Supervisely"
    background = True

    def find(self, path: Path) -> Path | None:
        if not path.is_dir():
            return None
        example = next((path / name for name in _labels_among(first_names(path, 5000))), None)
        return path if example is not None and {"objects", "size"} <= keys_of(example) else None

    def index(self, path: Path) -> Index:
        files = _labels_among(names_below(path))
        used, notes = scanned([path / name for name in files], _drawing)
        meta = next((p / _META for p in (path, *list(path.absolute().parents)[:2]) if (p / _META).is_file()), None)
        listed = _classes(meta) if meta is not None else []
        categories = tuple(Category(name) for name in dict.fromkeys([*listed, *used]))
        entries = tuple(Entry((_image_name(name),), path / name) for name in files)
        return Index(categories, entries, notes=notes)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        return _drawing(parts[0])


def _labels_among(all_names: Iterable[str]) -> list[str]:
    names = (name for name in all_names if name.lower().endswith(".json"))
    return [
        n for n in names if n.rpartition("/")[2] not in (_META, "obj_class_to_machine_color.json", "key_id_map.json")
    ]


def _image_name(name: str) -> str:
    """``dataset/ann/a.jpg.json`` -> ``dataset/img/a.jpg``."""
    folder, slash, file = name.removesuffix(".json").rpartition("/")
    if folder == "ann" or folder.endswith("/ann"):
        folder = f"{folder[: -len('ann')]}img"
    return f"{folder}{slash}{file}"


def _classes(path: Path) -> list[str]:
    content = read_json_file(path, "a Supervisely meta.json with classes")
    with damage_named(path, "a Supervisely meta.json with classes"):
        return [str(item["title"]) for item in content["classes"]]


def _drawing(path: Path) -> Drawing:
    content = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        height, width = whole(content["size"]["height"], "height"), whole(content["size"]["width"], "width")
        shapes = [(str(item["classTitle"]), _shape(item), item.get("geometryType")) for item in content["objects"]]
    drawn = tuple((name, shape) for name, shape, _ in shapes if shape is not None)
    return Drawing(height, width, drawn, left_out=tuple(str(kind) for _, shape, kind in shapes if shape is None))


def _shape(item: Mapping[str, Any]) -> Shape | None:
    """The area; None for a kind that has none."""
    kind = item.get("geometryType") or ("bitmap" if item.get("bitmap") else "polygon")
    if kind == "polygon":
        return CvPolygon(
            _corners(item["points"]["exterior"]), tuple(_corners(p) for p in item["points"].get("interior", ()))
        )
    if kind == "rectangle":
        corners = polygon_points(item["points"]["exterior"], least=2)
        (left, top), (right, bottom) = np.rint([corners.min(axis=0), corners.max(axis=0)]).astype(int).tolist()
        outline = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.int32)
        return CvPolygon(outline)
    if kind in ("bitmap", "alpha_mask"):
        left, top = polygon_points(item["bitmap"]["origin"], least=1)[0].astype(int).tolist()
        return Mask(_bitmap(item["bitmap"]["data"]), left, top)
    return None


def _corners(points: Any) -> NDArray[np.int32]:
    return np.rint(polygon_points(points)).astype(np.int32)


def _bitmap(data: str) -> NDArray[np.bool_]:
    packed = zlib.decompressobj()
    content = packed.decompress(base64.b64decode(data, validate=True), _MOST_BYTES)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("bitmap: no PNG")
    if decoded.ndim == 2:
        return decoded.astype(bool)
    return (decoded[..., 3] if decoded.shape[2] == 4 else decoded[..., 0]).astype(bool)
