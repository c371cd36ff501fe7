"""What is wrong with a recipe's keys and values, in the user's words."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

__all__ = ["RENAMED_STAGES", "problem_of", "renamed_stage"]

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
    location = detail["loc"]
    key = ".".join(str(part) for part in location) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{key}: {_unknown_key(location, recipe)}"
    if detail["type"] == "missing":
        return f"{key}: is required and absent"
    value = detail["input"]
    if isinstance(value, str) and (key, value) in _RENAMED_VALUES:
        return f"{key}: {value!r} is now called {_RENAMED_VALUES[key, value]!r}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = "" if isinstance(value, dict | list | BaseModel) else f", found {value!r}"
    return f"{key}: {message}{shown}"


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
