"""From a recipe's ``label_map`` to the decoder of label files."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from domainbridge.data.color_labels import color_labels
from domainbridge.data.label_map_keys import OTHERS, VALUES, color_key, has_colors, id_key, turned_round
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.labels import IdLabels, LabelDecoder
from domainbridge.errors import RecipeError
from domainbridge.types import IGNORE

__all__ = ["label_map_decoder", "train_id_of"]


def train_id_of(value: int | str, space: LabelSpace) -> int | None:
    """Train id of a class name, a train id or 'ignore' (255); None for anything else."""
    if value == "ignore" or value == IGNORE:
        return IGNORE
    if isinstance(value, str):
        return space.classes.index(value) if value in space.classes else None
    return value if 0 <= value < len(space) else None


def label_map_decoder(mapping: Mapping[int | str, int | str], space: LabelSpace, where: str) -> LabelDecoder:
    """Decoder for a recipe's ``label_map``: ids, ranges such as '1-10', '*' or '#rrggbb' to classes or 'ignore'.

    A single id outweighs a range, a range outweighs '*'. ``{class: id}`` is read as ``{id: class}``.

    Raises:
        RecipeError: keys or values have no meaning; the message lists all of them.
    """
    mapping = turned_round(mapping, space.classes)
    by_color = has_colors(mapping)
    problems: list[str] = []
    train_ids: dict[int, int] = {}
    ranges: list[tuple[range, int]] = []
    for key, value in mapping.items():
        train_id = train_id_of(value, space)
        if train_id is None:
            problems.append(
                f"value {value!r} of {key!r}: expected a class of {space.name}{_closest(value, space)}, a train id or "
                "'ignore'"
            )
        values = _values_of(key, by_color)
        if values is None or (by_color and key == OTHERS and train_id != IGNORE):
            problems.append(f"key {key!r}: expected {_expected_key(key, by_color, space)}")
        elif len(values) > 1:
            ranges.append((values, train_id or 0))
        elif train_ids.setdefault(values[0], train_id or 0) != (train_id or 0):
            problems.append(f"key {key!r}: is given twice, with different classes; keep one of the two")
    problems += _overlaps(ranges)
    if problems:
        raise RecipeError(f"{where}.label_map: " + "; ".join(problems))
    return color_labels(train_ids) if by_color else _id_labels(train_ids, ranges, space)


def _values_of(key: int | str, by_color: bool) -> range | None:
    """The ids or the color of a key; None if it names none."""
    if key == OTHERS:
        return range(VALUES)
    color = color_key(key) if by_color else None
    return id_key(key) if not by_color else None if color is None else range(color, color + 1)


def _expected_key(key: int | str, by_color: bool, space: LabelSpace) -> str:
    if key == OTHERS:
        return "a color; unlisted colors are ignored, or take the nearest listed one with label_nearest: true"
    if by_color:
        number = f"; write '#{key:06d}'" if isinstance(key, int) and 0 <= key < 10**6 else ""
        return f"'#rrggbb', in quotes, as for the other keys{number}"
    hint = f". For {key!r} of a label file with the id N write N: {key}" if key in space.classes else ""
    return f"an id from 0 to 65535, a range such as '1-10', '*' for all others (or, for every key, '#rrggbb'){hint}"


def _overlaps(ranges: list[tuple[range, int]]) -> list[str]:
    """Ranges that claim one value for two classes."""
    ordered = sorted((r for r in ranges if len(r[0]) < VALUES), key=lambda item: item[0].start)
    return [
        f"ranges {one.start}-{one.stop - 1} and {other.start}-{other.stop - 1} overlap; give each id once"
        for (one, train_id), (other, other_id) in pairwise(ordered)
        if other.start < one.stop and train_id != other_id
    ]


def _id_labels(train_ids: dict[int, int], ranges: list[tuple[range, int]], space: LabelSpace) -> IdLabels:
    table = np.full(VALUES, IGNORE, np.uint8)
    listed = np.zeros(VALUES, bool)
    for values, train_id in sorted(ranges, key=lambda item: -len(item[0])):
        table[values.start : values.stop] = train_id
        listed[values.start : values.stop] = True
    table[list(train_ids)] = list(train_ids.values())
    listed[list(train_ids)] = True
    return replace(IdLabels.native_ids(table, space.name), listed=listed)


def _closest(value: int | str, space: LabelSpace) -> str:
    close = difflib.get_close_matches(str(value), space.classes, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
