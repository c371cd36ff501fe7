"""YAML as recipes use it: from bytes to plain values, with the spelling of each value for messages.

Differences from PyYAML, all on the side of YAML 1.2: ``1e-4`` is a number; ``010`` is ten, not eight; ``1:30`` is text.
Refused: a key written twice, a list as a key, a color without quotes (YAML reads ``#`` as a comment), tags that are not
plain values, and values that are nested deeper than any recipe needs.
"""

import codecs
import re
from dataclasses import dataclass
from typing import Any

import yaml

__all__ = ["Document", "Location", "YamlError", "decoded", "parse_yaml"]

Location = tuple[int | str, ...]
"""Keys and positions that lead to a value."""

_DEEPEST = 40
_LARGEST = 4 * 2**20
"""Bytes of a recipe."""
_MOST_DIGITS = 400
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:\\.|[^\"\\])*\"")
_COLOR_COMMENT = re.compile(r"(?:(?:[{\[,:]|^\s*-)\s*#([0-9a-fA-F]{6})\b|^\s*#([0-9a-fA-F]{6})\s*:)")
"""A color where a value or key begins; a comment elsewhere is a comment."""
_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$")
_INT = re.compile(r"^[-+]?\d[\d_]*$")
_PLAIN_TAGS = ("null", "bool", "int", "float", "timestamp", "str", "seq", "map")


class YamlError(Exception):
    """What is wrong with a text, in one line, and the line's number if there is one."""

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text if line is None else f"line {line}: {text}")


@dataclass(frozen=True)
class Document:
    """A parsed text.

    Attributes:
        tree: its plain values.
        root: its nodes; None for an empty text.
    """

    tree: Any
    root: yaml.Node | None = None

    def written(self, place: Location) -> str | None:
        """The unquoted word at a place as the text has it; None for quoted words, lists, keys and unknown places."""
        node = self.root
        for part in place:
            node = _inner(node, part)
        return str(node.value) if isinstance(node, yaml.ScalarNode) and node.style is None else None


def _inner(node: yaml.Node | None, part: int | str) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode):
        return node.value[part] if isinstance(part, int) and part < len(node.value) else None
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in reversed(node.value) if key.value == str(part)), None)
    return None


class _Loader(yaml.SafeLoader):
    """See the module's docstring."""

    depth = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.checked: set[int] = set()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            line = self.line + 1
            raise YamlError(f"values are nested more than {_DEEPEST} deep; a recipe needs 6", line)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Look at the keys before merged ones (<<: *name) join them, which keys written here replace."""
        if id(node) not in self.checked:
            self.checked.add(id(node))
            self._check_keys(node)
        super().flatten_mapping(node)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            line = key_node.start_mark.line + 1
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, list | dict):
                raise YamlError(_unusable_key(key), line)
            if key in seen:
                raise YamlError(f"the key {key!r} is written twice; keep one of the two", line)
            seen.add(key)


def _unusable_key(key: list[Any] | dict[Any, Any]) -> str:
    if isinstance(key, list) and len(key) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in key):
        return f"a list cannot be a key; write the color {key} as '#{key[0]:02x}{key[1]:02x}{key[2]:02x}', with quotes"
    return "a list or a section cannot be a key; expected one word or number before the colon"


def _int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    text = str(node.value)
    if len(text) > _MOST_DIGITS:
        raise YamlError(f"a number of {len(text)} digits; put it in quotes if it is text", node.start_mark.line + 1)
    if ":" in text:
        return text
    return int(text.replace("_", "")) if _INT.match(text) else int(loader.construct_yaml_int(node))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    return str(node.value) if ":" in node.value else float(loader.construct_yaml_float(node))


_Loader.yaml_constructors = {
    tag: function
    for tag, function in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN_TAGS
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def decoded(content: bytes) -> str:
    """The text of a file: UTF-8, or what its byte order mark says.

    Raises:
        YamlError: another encoding, or too long for a recipe.
    """
    if len(content) > _LARGEST:
        raise YamlError(f"has {len(content):,} bytes; a recipe has at most {_LARGEST:,}. Is it another file?")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1 if encoding == "utf-8" else None
        value_found = f"byte 0x{content[error.start]:02x} is no {encoding.upper()} text; save the file as UTF-8"
        raise YamlError(value_found, line) from error


def parse_yaml(text: str) -> Document:
    """Plain values of a YAML text.

    Raises:
        YamlError: not YAML, or refused by the rules in the module's docstring.
    """
    _refuse_color_comments(text)
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Document(None if root is None else loader.construct_document(root), root)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"the character U+{error.character:04X} cannot stand in YAML; remove it", line) from error
    except yaml.MarkedYAMLError as error:
        raise _problem_of(error, text) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: month 13, a number of 5,000 digits
        raise YamlError(f"a value cannot be read: {error}; put it in quotes if it is text") from error
    except RecursionError as error:
        raise YamlError("values are nested too deeply, or contain themselves") from error
    finally:
        if loader is not None:
            loader.dispose()


def _problem_of(error: yaml.MarkedYAMLError, text: str) -> YamlError:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    reason = str(error.problem or error.context)
    if "\\t" in reason:
        return YamlError("a tab indents this line or follows a colon; YAML takes spaces only", line)
    if "could not determine a constructor" in reason or "expected a single document" in reason:
        what = "a tag (!...)" if "constructor" in reason else "a second document (---)"
        if "2002:value" in reason:
            what = "a lone ="
        return YamlError(
            f"{what} is not for recipes; expected plain keys and values. Quote the word if it is text", line
        )
    content = text.splitlines()[line - 1].strip() if line is not None and line <= len(text.splitlines()) else ""
    shown = f": {content[:80]}" if content else ""
    return YamlError(f"not YAML, {reason}; look at brackets, colons, quotes and indents here{shown}", line)


def _refuse_color_comments(text: str) -> None:
    """YAML takes the rest of a line after ``#`` for a comment: a color without quotes would vanish with its class."""
    for number, line in enumerate(text.splitlines(), 1):
        if "#" not in line:
            continue
        bare = _QUOTED.sub(lambda value_found: "x" * len(value_found[0]), line)
        color = _COLOR_COMMENT.search(bare.split(" # ")[0])
        if color:
            shown = color[1] or color[2]
            raise YamlError(
                f"YAML reads #{shown} and the rest of the line as a comment; put the color in quotes: '#{shown}'",
                number,
            )
