"""Files that name the classes of a data set, in the forms of common tools."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from domainbridge.data.label_map_keys import color_key
from domainbridge.data.walk import suffix_of

__all__ = ["ClassList", "find_class_list"]

_WORDS = ("class", "label", "names", "categories", "codes", "color", "palette", "meta", "data", "info")
"""One of these is in the name of every such file."""
_SUFFIXES = (".txt", ".csv", ".json", ".yaml", ".yml", ".names")
_MAX_BYTES = 1_000_000
_NUMBER = re.compile(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?")
_HEADERS = ("name", "label", "class", "id", "idx", "index", "r", "value", "pixel value", "color", "#")
"""First words of a line that names columns."""


@dataclass(frozen=True)
class ClassList:
    """Names of values or colors.

    Attributes:
        path: of the file, relative to the root.
        by_value: value -> name.
        by_color: 24-bit RGB -> name.
    """

    path: str
    by_value: Mapping[int, str]
    by_color: Mapping[int, str]


def find_class_list(root: Path, names: Sequence[str], values: Sequence[int], *, colors: bool) -> ClassList | None:
    """The first file below ``root`` that names most of the values, or of the colors.

    Args:
        root: of the data set.
        names: relative paths of its files.
        values: that occur in the labels; colors as 24-bit numbers.
        colors: whether the values are colors.
    """
    wanted = set(values) - ({255} if not colors else set())
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        base = name.rpartition("/")[2].lower()
        if suffix_of(name) not in _SUFFIXES or not any(word in base for word in _WORDS):
            continue
        path = root / name
        if path.stat().st_size > _MAX_BYTES:
            continue
        class_list = _read(path, name)
        table = class_list.by_color if colors else class_list.by_value
        if wanted and len(wanted & set(table)) >= 0.8 * len(wanted):
            return class_list
    return None


def _read(path: Path, name: str) -> ClassList:
    """What a file names; empty for a file of another kind."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if suffix_of(name) == ".json":
            rows = _from_tree(json.loads(text))
        elif suffix_of(name) in (".yaml", ".yml"):
            rows = _from_tree(yaml.safe_load(text))
        else:
            rows = _from_lines(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        rows = []
    by_value = {value: label for value, _, label in rows if value is not None}
    by_color = {color: label for _, color, label in rows if color is not None}
    return ClassList(name, by_value, by_color)


_Row = tuple[int | None, int | None, str]
"""Value, color, name."""


def _from_lines(text: str) -> list[_Row]:
    """``road``, ``0 road``, ``road,128,64,128``, ``road:128,64,128::`` (CVAT), ``128 64 128 road``, a line each.

    Columns may be mixed, as in ``128 64 128<tab>road``; numbers with a point are no part of a class.
    """
    rows: list[_Row] = []
    lines = [line.strip() for line in text.splitlines()]
    for line in lines:
        if not line or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in next(csv.reader(io.StringIO(re.sub(r"[:;\t,]+", ",", line)))) if cell.strip()]
        if len(cells) == 1:
            cells = re.split(r"\s+", cells[0])
        cells = [part for cell in cells for part in (cell.split() if re.fullmatch(r"[\d\s]+", cell) else [cell])]
        numbers = [int(cell) for cell in cells if cell.isdigit()]
        texts = [cell for cell in cells if not _NUMBER.fullmatch(cell)]
        if not texts or texts[0].lower() in _HEADERS:
            continue
        if len(numbers) + len(texts) < len(cells):  # shares in between, as in ADE20K's list: the first number is the id
            numbers = numbers[:1]
        label = " ".join(texts) if len(cells) == len(texts) else texts[0]
        if len(numbers) == 4:
            rows.append((numbers[0], _packed(numbers[1:]), label))
        elif len(numbers) == 3:
            rows.append((len(rows), _packed(numbers), label))
        else:
            rows.append((numbers[0] if len(numbers) == 1 else len(rows), None, label))
    return rows


def _from_tree(tree: Any) -> list[_Row]:
    """Lists and mappings of names, ids and colors, as JSON and YAML files of common tools have them."""
    if isinstance(tree, dict):
        for key in ("names", "classes", "labels", "categories", "items", "label_names"):
            if isinstance(tree.get(key), list | dict):
                return _from_tree(tree[key])
        rows = [row for key, value in tree.items() if (row := _from_pair(key, value)) is not None]
        lists = [value for value in tree.values() if isinstance(value, list) and value and isinstance(value[0], str)]
        return rows or (_from_tree(lists[0]) if lists else [])
    if isinstance(tree, list):
        return [row for position, entry in enumerate(tree) if (row := _from_entry(position, entry)) is not None]
    return []


def _from_pair(key: Any, value: Any) -> _Row | None:
    """``{0: road}``, ``{road: 0}``, ``{road: [128, 64, 128]}``, ``{"#804080": road}``."""
    if isinstance(value, str):
        if str(key).isdigit():
            return int(key), None, value
        color = _color(key)
        return (None, color, value) if color is not None else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value, None, str(key)
    color = _color(value)
    return (None, color, str(key)) if color is not None else None


def _from_entry(position: int, entry: Any) -> _Row | None:
    """``road``, or ``{name: road, id: 0, color: [128, 64, 128]}`` with the usual spellings of the keys."""
    if isinstance(entry, str):
        return position, None, entry
    if not isinstance(entry, dict):
        return None
    label = next((entry[key] for key in ("name", "readable", "title", "label", "class") if key in entry), None)
    ids = (entry[key] for key in ("id", "value", "index", "trainId") if isinstance(entry.get(key), int))
    number = next(ids, position)
    return None if label is None else (number, _color(entry.get("color")), str(label))


def _color(value: Any) -> int | None:
    """24-bit RGB of ``#804080`` or ``[128, 64, 128]``."""
    if isinstance(value, str):
        return color_key(value)
    is_triple = isinstance(value, list | tuple) and len(value) in (3, 4)
    if is_triple and all(isinstance(part, int) and 0 <= part <= 255 for part in value):
        return _packed(value[:3])
    return None


def _packed(rgb: Sequence[int]) -> int:
    return rgb[0] << 16 | rgb[1] << 8 | rgb[2]
