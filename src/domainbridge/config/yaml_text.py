"""Recipe files as people save them: encodings, and mistakes that YAML does not tell, or tells in words of its own."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from domainbridge.errors import RecipeError

__all__ = ["parse_value", "read_yaml"]

_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_UNQUOTED_COLOR = re.compile(r"^\s*(?:.*[{,]\s*)?(#[0-9a-fA-F]{6}\s*:[^,}]*)")
_MAX_BYTES = 10_000_000
_MAX_DEPTH = 100


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a float (PyYAML reads 1e-4 as a string), and errors for keys that are lists or come twice."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"more than {_MAX_DEPTH} lists or sections inside each other")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)  # merge keys
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            line = node.value[position][0].start_mark.line + 1
            if not isinstance(key, Hashable):
                hint = ""
                if isinstance(key, list) and len(key) == 3 and all(isinstance(part, int) for part in key):
                    hint = f"; write a color as '#{key[0] & 255:02x}{key[1] & 255:02x}{key[2] & 255:02x}'"
                raise yaml.YAMLError(f"line {line}: the key {key!r} is no single value{hint}")
            if key in keys[:position]:
                raise yaml.YAMLError(f"line {line}: the key {key!r} is written twice")
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: Path) -> object:
    """The plain values of a YAML file: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        RecipeError: unreadable; the line is named.
    """
    try:
        if not path.is_file():
            raise RecipeError(f"{path}: no regular file")
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise RecipeError(f"{path}: {len(content)} bytes; a recipe has a few thousand")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: no {encoding.upper()} text (byte {error.start}); save the file as UTF-8 in the editor"
        ) from error
    unquoted = _unquoted_colors(text)
    if unquoted:
        raise RecipeError(
            f"{path}: {'; '.join(unquoted)}: YAML takes everything from # on for a comment. Quote colors: '#rrggbb'"
        )
    try:
        return _load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {_in_words(error)}") from error


def parse_value(text: str) -> object:
    """A value of the command line, as YAML.

    Raises:
        ValueError: the value is nested too deeply.
    """
    try:
        return _load(text)
    except yaml.YAMLError as error:
        if "inside each other" in str(error):
            raise ValueError(str(error)) from error
        return text


def _load(text: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError(f"more than {_MAX_DEPTH} lists or sections inside each other") from None
    except (ValueError, OverflowError) as error:  # e.g. a date with month 13, a number too long for a float
        raise yaml.YAMLError(str(error)) from error


def _unquoted_colors(text: str) -> list[str]:
    """Lines on which a color is a comment."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _UNQUOTED_COLOR.match(line)
        if match and not line[: match.start(1)].strip().startswith("#"):
            lines.append(f"line {number}: {match[1].strip()}")
    return lines[:5]


def _in_words(error: yaml.YAMLError) -> str:
    """What YAML found, with line and column, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    hint = "; indent with spaces" if "\\t" in problem else ""
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}{hint}"
