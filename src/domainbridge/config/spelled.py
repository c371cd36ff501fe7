"""Values as messages show them: short, in the words of YAML, and never longer than a line."""

import datetime
from typing import Any

__all__ = ["key_text", "kind_of", "shown"]

_LONGEST = 60


def key_text(part: object) -> str:
    """A key or position of a location."""
    return _cut(str(part)) if isinstance(part, str | int) and part != "" else shown(part)


def shown(value: object) -> str:
    """A value, shortened: ``'text'``, ``3``, ``false``, ``nothing``, ``a list of 4``, ``keys and values (a, b)``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | set | frozenset):
        return _list_text(value)
    if isinstance(value, dict):
        names = ", ".join(key_text(key) for key in list(value)[:3])
        return f"keys and values ({names}{', ...' if len(value) > 3 else ''})" if value else "an empty section"
    if isinstance(value, datetime.date):
        return f"the date {value}"
    try:
        return _cut(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return f"a number of more than {_LONGEST} digits"


def _list_text(value: Any) -> str:
    plain = all(isinstance(part, int | float | str) for part in value)
    text = f"[{', '.join(shown(part) for part in value)}]" if plain and 0 < len(value) <= 6 else ""
    return text if text and len(text) <= _LONGEST else f"a list of {len(value)}"


def kind_of(value: object) -> str:
    """What YAML takes an unquoted word for."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date):
        return "a date"
    return f"the number {shown(value)}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}... ({len(text)} characters)"
