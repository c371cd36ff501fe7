"""What is wrong with a recipe's keys and values, in the user's words: key, value found, value expected, what to do."""

import datetime
import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from domainbridge.config.base import ODD_VALUES
from domainbridge.config.expected import expected_text, expected_value
from domainbridge.config.renamed import REMOVED, RENAMED, RENAMED_VALUES
from domainbridge.config.spelled import key_text, kind_of, shown

__all__ = ["Written", "problems_of"]

Location = tuple[Any, ...]
Written = Callable[[Location], str | None]
"""The unquoted word that a file has at a place; None if it is quoted, or not known."""


def problems_of(
    details: Sequence[ErrorDetails], tree: dict[Any, Any], recipe: type[BaseModel], written: Written
) -> list[tuple[Location, str]]:
    """One line per problem, with its place.

    Args:
        details: of a validation error.
        tree: what was validated.
        recipe: the class that was validated.
        written: spelling of values.
    """
    groups: dict[Location, list[ErrorDetails]] = {}
    for detail in details:
        groups.setdefault(_place(detail["loc"], tree), []).append(detail)
    problems: list[tuple[Location, str]] = []
    for place, group in groups.items():
        if _is_covered(place, group, groups):
            continue
        for where, text in _lines(place, group, tree, recipe, written):
            key = ".".join(key_text(part) for part in where)
            problems.append((where, f"{key}: {text}" if key else text))
    return problems


def _place(location: Location, tree: Any) -> Location:
    """A location without the marks that pydantic adds for the members of a union and for keys."""
    place: Location = ()
    node = tree
    for position, part in enumerate(location):
        if _has(node, part):
            place, node = (*place, part), node[part]
        elif isinstance(node, dict) and isinstance(part, int) and str(part) in node:  # '3' became the number 3
            place, node = (*place, str(part)), node[str(part)]
        elif position == len(location) - 1 and isinstance(node, dict) and not _is_mark(part):
            place = (*place, part)
    return place


def _has(node: object, part: int | str) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list | tuple) and isinstance(part, int) and part < len(node)


def _is_mark(part: object) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("str", "int") or part.endswith("Config"))


def _is_covered(place: Location, group: Sequence[ErrorDetails], groups: dict[Location, list[ErrorDetails]]) -> bool:
    """Whether problems inside this value say it all: 'too short' for a list with a wrong element, or 'not a word'."""
    inner = any(len(other) > len(place) and other[: len(place)] == place for other in groups)
    return inner and all(
        detail["type"] in ("too_short", "string_type", "int_type", "literal_error") for detail in group
    )


def _lines(
    place: Location, group: Sequence[ErrorDetails], tree: dict[Any, Any], recipe: type[BaseModel], written: Written
) -> Iterator[tuple[Location, str]]:
    sections = [detail for detail in group if detail["type"] not in ("string_type", "int_type")]
    if isinstance(group[0]["input"], dict) and sections and sections[0]["type"] == "value_error":
        group = sections  # of the two forms of a label space, the section was meant
    first = group[0]
    kind, value = first["type"], first["input"]
    context = first.get("ctx", {})
    if kind == ODD_VALUES:
        for inside, odd in zip(context["places"], context["values"], strict=True):
            where = (*place, *inside)
            yield where, _not_meant(odd, where, written)
    elif kind == "extra_forbidden":
        yield place, unknown_key(place, recipe)
    elif kind == "invalid_key" or any(part == "[key]" for part in first["loc"]):
        yield place, f"the key {shown(value)} is no word; put it in quotes"
    elif kind == "missing" and place and not isinstance(first["loc"][-1], int):
        yield place, "is required and absent"
    elif kind == "value_error":
        yield from ((place, detail["msg"].removeprefix("Value error, ")) for detail in group)
    elif isinstance(value, str) and (".".join(map(str, place)), value) in RENAMED_VALUES:
        yield place, f"{value!r} is now called {RENAMED_VALUES['.'.join(map(str, place)), value]!r}"
    elif kind == "string_type" and len(group) == 1 and not isinstance(value, list | dict | tuple):
        yield place, _no_text(value, place, written)
    else:
        value = _at(place, tree) if kind == "missing" else value
        special = expected_value(place, value, context, kind)
        wanted = list(dict.fromkeys(expected_text(detail) for detail in group))
        yield place, special or f"expected {' or '.join(wanted)}, found {shown(value)}"


def _at(place: Location, tree: Any) -> Any:
    for part in place:
        tree = tree[part]
    return tree


def _no_text(value: object, place: Location, written: Written) -> str:
    """A number, a date, ``no`` or ``~`` where a text belongs."""
    word = written(place)
    if value is None:
        return f"expected text, found {'nothing' if not word else f'{word}, which YAML reads as nothing'}"
    if isinstance(value, bool | int | float | datetime.date):
        if word is None and isinstance(value, datetime.date):
            word = value.isoformat()
        elif word is None and not isinstance(value, bool):
            word = shown(value)
        if word is None:
            return f"expected text, found {kind_of(value)}; YAML reads yes, no, on and off so: put the word in quotes"
        return f"expected text, but YAML reads {word} as {kind_of(value)}; put it in quotes: '{word}'"
    return f"expected text, found {shown(value)}"


def _not_meant(value: object, place: Location, written: Written) -> str:
    if isinstance(value, str):
        return f"holds the character NUL, which no name and no path can have: {shown(value)}; remove it"
    if isinstance(value, bool):
        word = written(place) or str(value).lower()
        if word == str(value).lower():
            return f"expected a number, or a name in quotes, found {word}"
        return f"YAML reads {word} as {kind_of(value)}; expected a number, or a name in quotes: '{word}'"
    return _no_text(value, place, written)


def unknown_key(location: Location, recipe: type[BaseModel]) -> str:
    """What to say of a key that its section does not have."""
    parts = [part for part in location if isinstance(part, str)]
    if parts and parts[0] == "stages":
        del parts[1:2]
    if not isinstance(location[-1], str) or not parts:
        return f"the key {shown(location[-1])} is no word; known here: {', '.join(_keys_beside(location, recipe))}"
    old = ".".join(parts)
    if old in RENAMED:
        return f"this key is now called {RENAMED[old]!r}"
    if old in REMOVED:
        return f"this key was removed: {REMOVED[old]}"
    if parts[0] == "targets" and len(parts) == 2 and parts[1].startswith(("label", "mask", "annotation")):
        return "a target has no labels; labels for scores stand in its section validation: {root: ..., labels: ...}"
    names = _keys_beside(location, recipe)
    close = difflib.get_close_matches(parts[-1][:80].lower(), names, n=1)
    return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known here: {', '.join(names)}"


def _keys_beside(location: Location, recipe: type[BaseModel]) -> list[str]:
    """Field names of the section in which a location's last part was looked for."""
    section: type[BaseModel] | None = recipe
    for part in location[:-1]:
        if section is not None and isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields) if section is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as ``tuple[SourceConfig, ...]`` or ``ValidationConfig | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = [section for part in get_args(annotation) if (section := _section_in(part))]
    return sections[0] if sections else None
