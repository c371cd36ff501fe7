"""The keys of a ``label_map`` for masks: ids, ranges of ids, colors, and ``*`` for every other id."""

import re
from collections.abc import Iterable, Mapping

from domainbridge.config.class_list import as_color

__all__ = ["OTHERS", "VALUES", "color_key", "has_colors", "id_key", "turned_round"]

VALUES = 2**16
"""Number of ids that a mask of 16 bits can have."""
OTHERS = "*"
_RANGE = re.compile(r"^(\d{1,5})\s*(?:-|\.\.)\s*(\d{1,5})$")


def has_colors(keys: Iterable[int | str]) -> bool:
    """Whether a map is one of colors: a key is '#rrggbb', '[r, g, b]', or six hexadecimal digits with a letter."""
    return any(isinstance(key, str) and not key.isdigit() and color_key(key) is not None for key in keys)


def color_key(key: int | str) -> int | None:
    """A color as a 24-bit number, from '#rrggbb', 'rrggbb' or '[r, g, b]'; None for anything else."""
    color = as_color(key)
    if not isinstance(color, list) or max(color) > 255:
        return None
    return int.from_bytes(bytes(color))


def id_key(key: int | str) -> range | None:
    """The ids that a key names: 7, '7', '0x07', or '1-10' with both ends; None for anything else."""
    if isinstance(key, str):
        if match := _RANGE.match(key):
            first, last = int(match[1]), int(match[2])
            return range(first, last + 1) if first <= last < VALUES else None
        if not re.match(r"^(\d{1,6}|0[xX][0-9a-fA-F]{1,4})$", key):
            return None
        key = int(key, 16 if key[:2].lower() == "0x" else 10)
    return range(key, key + 1) if 0 <= key < VALUES else None


def turned_round(mapping: Mapping[int | str, int | str], classes: Iterable[str]) -> Mapping[int | str, int | str]:
    """``{background: 0, crack: 255}`` as ``{0: background, 255: crack}``; every other map as it is.

    A map counts as turned round if each key is a class and no id or color, and each value an id or color of its own.
    """
    names = {*classes, "ignore"}
    as_key = color_key if has_colors(mapping.values()) else id_key
    keys_are_names = all(key in names and id_key(key) is None and color_key(key) is None for key in mapping)
    values_are_keys = all(as_key(value) is not None for value in mapping.values())
    if not (keys_are_names and values_are_keys and len(set(mapping.values())) == len(mapping)):
        return mapping
    return {value: key for key, value in mapping.items()}
