"""The forms in which people write classes and colors, brought to a list of names and a list of RGB triples."""

import re
from typing import Any

from domainbridge.config.spelled import shown

__all__ = ["as_color", "ordered_classes"]

_HEX = re.compile(r"^#?([0-9a-fA-F]{6})$")
_TRIPLE = re.compile(r"^[\[(]?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[\])]?$")


def as_color(value: Any) -> Any:
    """RGB of '#rrggbb', 'rrggbb' or '[r, g, b]'; any other value as it is."""
    if not isinstance(value, str):
        return value
    if match := _HEX.match(value):
        return [int(match[1][start : start + 2], 16) for start in (0, 2, 4)]
    triple = _TRIPLE.match(value)
    return [int(part) for part in triple.groups()] if triple else value


def ordered_classes(given: dict[Any, Any]) -> dict[str, Any]:
    """``classes`` and perhaps ``colors`` of a mapping: number -> name, name -> number, or name -> color.

    Raises:
        ValueError: the numbers are not 0, 1, ... K-1, or the mapping is another one.
    """
    keys, values = list(given), list(given.values())
    if keys and all(type(key) is int for key in keys):
        _refuse_gaps(keys)
        return {"classes": [given[number] for number in range(len(given))]}
    if keys and all(type(value) is int for value in values):
        _refuse_gaps(values)
        return {"classes": sorted(given, key=given.__getitem__)}
    colors = [as_color(value) for value in values]
    if keys and all(isinstance(color, list | tuple) and len(color) == 3 for color in colors):
        return {"classes": keys, "colors": colors}
    raise ValueError(
        f"classes: expected a list of names, {{0: road, 1: car}} or {{road: '#804080', car: '#00008e'}}, "
        f"found {shown(given)}"
    )


def _refuse_gaps(numbers: list[int]) -> None:
    if sorted(numbers) != list(range(len(numbers))):
        listed = ", ".join(shown(number) for number in sorted(numbers)[:12])
        raise ValueError(
            f"classes: numbers must be 0 to {len(numbers) - 1}, each once, found {listed}; count from 0, "
            "and give the values of the files in label_map"
        )
