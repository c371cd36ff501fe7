"""What a value should have been, for each kind of problem that pydantic finds."""

import difflib
import re
from typing import Any

from pydantic_core import ErrorDetails

from domainbridge.config.spelled import shown

__all__ = ["expected_text", "expected_value"]

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("of at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("of at most", "le"),
}
_KINDS = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list in brackets, such as [a, b]",
    "list": "a list in brackets, such as [a, b]",
    "dict": "keys and values, such as {key: value}",
    "model": "keys and values, such as {key: value}",
    "finite": "a finite number",
}


def expected_text(detail: ErrorDetails) -> str:
    """What one problem of pydantic asks for, as a noun."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        return (
            f"a number {word} {context[name]:,}"
            if isinstance(context[name], int)
            else f"a number {word} {context[name]}"
        )
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("too_short", "too_long"):
        number = context["min_length" if kind == "too_short" else "max_length"]
        return f"a list with at {'least' if kind == 'too_short' else 'most'} {number} element{'s' * (number != 1)}"
    if kind == "string_too_short":
        return "a text that is not empty"
    if kind == "string_too_long":
        return f"a text of at most {context['max_length']} characters"
    if kind == "string_pattern_mismatch":
        return f"a text like {context['pattern']}"
    if kind == "missing":
        return f"a list with at least {int(detail['loc'][-1]) + 1} elements"
    if kind.startswith("int") and isinstance(detail["input"], float) and abs(detail["input"]) > 2**62:
        return "a whole number of at most 1,000,000,000"
    return _KINDS.get(kind.partition("_")[0], detail["msg"][:1].lower() + detail["msg"][1:])


def expected_value(place: tuple[Any, ...], given: Any, context: dict[str, Any], kind: str) -> str | None:
    """A better sentence for the values that people get wrong most; None for the others."""
    last = place[-1] if place else None
    if last == "label_space":
        return (
            f"expected the name of a label space or {{name: mine, classes: [background, crack]}}, found {shown(given)}"
        )
    if "label_map" in place[-2:-1]:
        hint = "; a pixel has one class: write ignore for a value that stands for several"
        if isinstance(given, list) and given and not str(last).isdigit() and all(isinstance(i, int) for i in given):
            hint = f"; write each id before its class, {given[0]}: {last}"
        hint = hint if isinstance(given, list) else ""
        return f"expected a class name, a train id or 'ignore', found {shown(given)}{hint}"
    if place in (("sources",), ("targets",)) and kind == "tuple_type":
        return f"expected a list, a '-' before each element: '- {{name: a, root: DIR, ...}}', found {shown(given)}"
    if last == "name" and kind == "string_pattern_mismatch":
        other = re.sub(r"[^A-Za-z0-9._+-]+", "-", given).strip("-._+") or "my-run"
        return (
            f"expected letters, digits and . _ + -, with a letter or a digit first, found {shown(given)}; "
            f"e.g. {other[:60]}"
        )
    if last in ("image_pattern", "label_pattern") and kind == "string_pattern_mismatch":
        return f"expected {{stem}} once, e.g. '{{stem}}_mask.png', found {shown(given)}"
    if kind == "literal_error" and isinstance(given, str):
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        close = difflib.get_close_matches(given[:40], options, n=1)
        return f"expected {context['expected']}, found {shown(given)}; did you mean {close[0]!r}?" if close else None
    if kind == "tuple_type" and isinstance(given, str) and "," in given and len(given) < 200:
        options = [part.strip() for part in given.split(",")]
        return f"expected a list, found the text {shown(given)}; write [{', '.join(options)}]"
    if last == "classes" and kind == "too_short":
        return f"a segmentation model needs at least two classes, found {shown(given)}; add 'background' for the rest"
    return None
