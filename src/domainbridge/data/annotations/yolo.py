"""YOLO segmentation: a text file per image; a line is a class number and a polygon in shares of width and height.

Polygons are filled as ultralytics does: corners cut to whole pixels, ``cv2.fillPoly``. Names of the classes are those
of ``data.yaml`` (or ``classes.txt``) in the folder of labels or one of the three folders above.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import (
    beginning,
    damage_named,
    first_names,
    names_below,
    names_like,
    text_of,
    whole,
)
from domainbridge.data.annotations.shapes import CvPolygon
from domainbridge.data.decode import image_size
from domainbridge.data.storage.tar import read_bytes
from domainbridge.data.storage.virtual import parsed

__all__ = ["Yolo"]

_NUMBERS = re.compile(r"^\d+(?:\.0*)?(\s+-?\d*\.?\d+([eE][-+]?\d+)?){4,}\s*$")
_EXPECTED = "YOLO segmentation: a line per object with class number and x y pairs from 0 to 1"
_NAME_LISTS = ("classes.txt", "obj.names", "names.txt")
_OTHER_TEXTS = ("readme.txt", "train.txt", "val.txt", "test.txt", "labelmap.txt")
_SCANNED = 2000
"""Files that are read for the list of class numbers."""
_SLACK = 0.01
"""A coordinate may be so far outside [0, 1]."""


@register_format("yolo")
class Yolo:
    """Text files of YOLO segmentation, named as their images."""

    title = "YOLO segmentation"
    background = True

    def find(self, path: Path) -> Path | None:
        if not path.is_dir():
            return None
        for name in _labels_among(first_names(path, 1000))[:20]:
            lines = [line for line in beginning(path / name, 4096).splitlines() if line.strip()]
            if lines:
                return path if _NUMBERS.match(lines[0]) or len(lines[0]) > 3000 else None
        return None

    def index(self, path: Path) -> Index:
        names_file = _names_file(path)
        names = parsed(names_file, "yolo names", _read_names) if names_file is not None else {}
        files = _labels_among(names_below(path))
        entries = tuple(Entry((name[: -len(".txt")],), path / name) for name in files)
        notes: tuple[str, ...] = (
            () if names_file else (f"no data.yaml beside or above {path}; categories are named by their numbers",)
        )
        used: set[int] = set().union(*(parsed(path / name, "yolo numbers", _numbers) for name in files[:_SCANNED]))
        unnamed = ", ".join(str(number) for number in sorted(used - set(names)))
        if names and unnamed:
            notes = (f"class numbers that {names_file} does not name are ignored: {unnamed}",)
        names = names or {number: str(number) for number in sorted(used)}
        categories = tuple(Category(name, number) for number, name in names.items())
        companions = (names_file,) if names_file else ()
        return Index(categories, entries, companions, notes, needs_image=True)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        label, image = parts[-2:]
        names = parsed(parts[0], "yolo names", _read_names) if len(parts) > 2 else {}
        height, width = image_size(image)
        with damage_named(label, _EXPECTED):
            shapes = []
            for position, line in enumerate(text_of(read_bytes(label)).splitlines(), 1):
                if line.strip():
                    number, polygon = _polygon(line.split(), position, height, width)
                    shapes.append((names.get(number, str(number)), polygon))
        return Drawing(height, width, tuple(shapes))


def _polygon(columns: list[str], position: int, height: int, width: int) -> tuple[int, CvPolygon]:
    if len(columns) == 5:
        raise ValueError(f"line {position} has 5 columns, a box; boxes are no masks: export segmentation labels")
    if len(columns) < 7 or len(columns) % 2 == 0:
        raise ValueError(f"line {position} has {len(columns)} columns; expected an odd number from 7 on")
    points = np.array(columns[1:], np.float64).reshape(-1, 2)
    if not ((points >= -_SLACK) & (points <= 1 + _SLACK)).all():  # also NaN
        raise ValueError(f"line {position} has coordinates outside 0 to 1")
    return whole(columns[0], f"line {position}: class number"), CvPolygon((points * (width, height)).astype(np.int32))


def _numbers(path: Path) -> set[int]:
    """Class numbers that a label file has; damaged lines are passed over, :meth:`Yolo.draw` names them."""
    columns = (line.split()[0] for line in beginning(path, 2**20).splitlines() if line.strip())
    return {int(float(word)) for word in columns if re.fullmatch(r"\d{1,6}(\.0*)?", word)}


def _labels_among(names: Iterable[str]) -> list[str]:
    """Names of label files, without lists of names and splits."""
    texts = (name for name in names if name.lower().endswith(".txt"))
    return [name for name in texts if name.rpartition("/")[2].lower() not in (*_NAME_LISTS, *_OTHER_TEXTS)]


def _names_file(folder: Path) -> Path | None:
    for place in (folder, *list(folder.absolute().parents)[:3]):
        for file in names_like(place, ".yaml", ".yml"):
            if re.search(r"^names\s*:", beginning(file), re.MULTILINE):
                return file
        listed = next((place / name for name in _NAME_LISTS if (place / name).is_file()), None)
        if listed is not None:
            return listed
    return None


def _read_names(path: Path) -> dict[int, str]:
    """Class number -> name."""
    with damage_named(path, "names: a list of class names, or number: name"):
        text = text_of(read_bytes(path))
        if path.suffix not in (".yaml", ".yml"):
            return {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}
        names = yaml.safe_load(text)["names"]
        given = names if isinstance(names, dict) else dict(enumerate(names))
        return {int(number): str(name) for number, name in given.items()}
