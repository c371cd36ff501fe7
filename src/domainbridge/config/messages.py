"""What is wrong with a recipe's keys and values, in the user's words."""

import difflib
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

__all__ = ["RENAMED_STAGES", "of_one_branch", "problem_of", "renamed_stage"]

_RENAMED = {
    "later_rate": "later_rounds_lr_factor",
    "crop.max_class_share": "cat_max_ratio",
    "crop.tries": "max_tries",
    "sampling.balance": "domain_temperature",
    "sampling.temperature": "rcs_temperature",
    **{
        f"{section}.{old}": new
        for section in ("training", "stages")
        for old, new in {
            "accumulate": "gradient_accumulation_steps",
            "recompute": "activation_checkpointing",
            "head_multiplier": "head_lr_mult",
            "statistics": "adapt_batchnorm",
        }.items()
    },
    "distillation.weights_on": "rectify",
    "distillation.confidence_share": "weight_by_confidence",
    "runtime.workers": "num_workers",
    "sources.exclude": "exclude_files",
    "targets.exclude": "exclude_files",
    "targets.validation.exclude": "exclude_files",
    "evaluation.exclude": "exclude_classes",
}
"""Key before version 0.2 -> key now, in the same section; of ``stages`` without the stage's name."""
_REMOVED = {"runtime.remember_listings": "files are listed at every start; leave the key out"}
_SHOWN = 80
_INTERNAL = re.compile(r"^(str|int|float|bool|list|tuple|dict|none|\[key\]|[A-Za-z]+Config|[a-z-]+\[.*\])$")
"""What pydantic adds to the path of a value: branches of unions, names of checks."""
_EXPECTED = {
    "string_type": "expected a text",
    "string_pattern_mismatch": "expected another form ({pattern})",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} characters",
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list, e.g. [first, second]"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected keys with values"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "expected a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    "finite_number": "expected a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    "literal_error": "expected {expected}",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "too_short": "expected at least {min_length} entries",
    "too_long": "expected at most {max_length} entries",
}
"""Kind of problem -> what to say; {...} are its limits."""
_RENAMED_VALUES = {("fidelity", "fixed"): "corrected"}
RENAMED_STAGES = ("-distil", "-distill")


def renamed_stage(name: str) -> str | None:
    """Today's name of a stage that was renamed, else None."""
    old, new = RENAMED_STAGES
    return name.removesuffix(old) + new if name.endswith(old) else None


def problem_of(detail: ErrorDetails, recipe: type[BaseModel]) -> str:
    """One line that names the key, the value found and what was expected.

    Args:
        detail: of a validation error.
        recipe: the class that was validated.
    """
    location = _plain_location(detail["loc"])
    key = ".".join(str(part) for part in location) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{key}: {_unknown_key(location, recipe)}"
    if detail["type"] == "missing":
        return f"{key}: is required and absent"
    value = detail["input"]
    if isinstance(value, str) and (key, value) in _RENAMED_VALUES:
        return f"{key}: {value!r} is now called {_RENAMED_VALUES[key, value]!r}"
    told = detail["type"] == "value_error" and isinstance(value, dict)  # our own sentence says what was found
    shown = "" if told or isinstance(value, BaseModel) else f", found {_short(value)}"
    return f"{key}: {_expected(detail)}{shown}{_quoting(detail)}"


def of_one_branch(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Of a value that may be a text or a section: only the problems of the form that was given."""
    return [
        detail
        for detail in details
        if not (detail["loc"] and detail["loc"][-1] == "str" and isinstance(detail["input"], dict))
        and not (detail["type"] == "model_type" and isinstance(detail["input"], str))
    ]


def _plain_location(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Keys and positions without the library's names of types and checks."""
    return tuple(part for part in location if not (isinstance(part, str) and _INTERNAL.match(part)))


def _short(value: object) -> str:
    text = str(value) if isinstance(value, date) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _expected(detail: ErrorDetails) -> str:
    """What was expected, in words."""
    limits = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "too_short" and detail["loc"][-1] == "classes":
        return "a segmentation model needs at least two classes; add e.g. 'background'"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**limits)
    message = detail["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _quoting(detail: ErrorDetails) -> str:
    """How to write a text that YAML reads as something else."""
    value = detail["input"]
    if detail["type"] != "string_type" or value is None or isinstance(value, dict | list):
        return ""
    if isinstance(value, bool):
        word = "yes, on, true" if value else "no, off, false"
        return f"; YAML reads {word} like that: quote the text, e.g. '{'yes' if value else 'no'}'"
    return f"; quote the text: '{value}'"


def _unknown_key(location: tuple[int | str, ...], recipe: type[BaseModel]) -> str:
    parts = [part for part in location if isinstance(part, str)]
    if parts[0] == "stages":
        del parts[1:2]
    old = ".".join(parts)
    if old in _RENAMED:
        return f"this key is now called {_RENAMED[old]!r}"
    if old in _REMOVED:
        return f"this key was removed: {_REMOVED[old]}"
    names = _keys_beside(location, recipe)
    close = difflib.get_close_matches(parts[-1], names, n=1)
    return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known here: {', '.join(names)}"


def _keys_beside(location: tuple[int | str, ...], recipe: type[BaseModel]) -> list[str]:
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
