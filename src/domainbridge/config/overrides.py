"""``key.sub=value`` arguments, put into a tree of plain values."""

from collections.abc import Sequence
from typing import Any

from domainbridge.config.spelled import shown
from domainbridge.config.yaml_text import Document, Location, YamlError, parse_yaml

__all__ = ["Override", "apply_overrides"]

Override = tuple[Location, Document]
"""Where a value was put, and its text."""


def apply_overrides(tree: dict[str, Any], arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Set each ``key.sub=value`` in a tree, which is changed.

    Returns:
        What was set, and what is wrong with the arguments.
    """
    done: list[Override] = []
    problems: list[str] = []
    for argument in arguments:
        try:
            place, document = _set(tree, argument)
        except YamlError as error:
            problems.append(str(error))
            continue
        if any(place == earlier for earlier, _ in done):
            problems.append(f"{'.'.join(map(str, place))}: is given twice on the command line; keep one of the two")
        done.append((place, document))
    return done, problems


def _set(tree: dict[str, Any], argument: str) -> Override:
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals or not key:
        raise YamlError(f"{shown(argument)}: expected key=value, e.g. training.steps=500")
    if not text.strip():
        raise YamlError(f"{key}: no value after =; write {key}=null for the default, or {key}=\"''\" for an empty text")
    *parents, last = key.split(".")
    if "" in (*parents, last):
        raise YamlError(f"{key}: a part of the key is empty; expected names with one dot between, e.g. training.steps")
    node: Any = tree
    place: Location = ()
    for parent in parents:
        part, node = _entered(node, parent, key)
        place += (part,)
    part = _position(node, last, key) if isinstance(node, list) else last
    document = _value(key, text)
    node[part] = document.tree
    return (*place, part), document


def _entered(node: Any, parent: str, key: str) -> tuple[int | str, Any]:
    """The list or section one part deeper; an absent section is made."""
    part = _position(node, parent, key) if isinstance(node, list) else parent
    if isinstance(node, dict) and node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise YamlError(f"{key}: {parent!r} holds a value, not keys")
    return part, node[part]


def _position(node: list[Any], part: str, key: str) -> int:
    if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(node)):
        raise YamlError(f"{key}: {part!r} is not a position in a list of {len(node)}; the first is 0")
    return int(part)


def _value(key: str, text: str) -> Document:
    """The value as YAML reads it; a text that only looks like broken YAML, such as ``a: b: c``, stays text."""
    if text.lstrip().startswith("#"):
        raise YamlError(
            f"{key}: YAML reads # as the begin of a comment; put the value in quotes, {key}=\"'{text.strip()}'\""
        )
    try:
        return parse_yaml(text)
    except YamlError as error:
        if text.lstrip()[0] in "[{'\"#!&*" or "\0" in text or "nested" in str(error) or "digits" in str(error):
            raise YamlError(f"{key}: {str(error).removeprefix('line 1: ')}") from error
        return Document(text)
