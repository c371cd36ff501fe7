"""Every key of a recipe as a Markdown page, made of the schema, the only home of the keys."""

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["keys_page"]

_INTRODUCTION = """# The keys of a recipe

Made by `domainbridge recipes keys`. A key of a section is written inside it, or with a dot on the command line:
`training.steps=2000`; an element of a list by its position: `targets.0.root=photos`; a stage by its whole name:
`stages.r1-cut.steps=500`. `domainbridge recipes show quickstart` is a recipe to begin with.
"""
_SIGNS = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
_OUT_OF_REACH = 10**9
"""Bounds from here on keep nonsense out and tell a reader nothing."""
_TYPE_NAMES = {bool: "true, false", int: "whole number", float: "number", str: "text", type(None): "nothing"}


def keys_page(recipe: type[BaseModel], others: Mapping[str, type[BaseModel]]) -> str:
    """Markdown: a table for the recipe itself and for each of its sections, in the recipe's order.

    Args:
        recipe: class of a recipe with the default method's keys.
        others: further methods by name, with their own keys.
    """
    tables = [_table("recipe", recipe)]
    sections = _sections(recipe, "")
    tables += [_table(path, section) for path, section in sections]
    known = [section for _, section in sections]
    for name, config in others.items():
        tables.append(_table(f"method: {name}", config))
        further = [(path, section) for path, section in _sections(config, "") if section not in known]
        tables += [_table(f"method: {name}, {path}", section) for path, section in further]
        known += [section for _, section in further]
    return "\n".join([_INTRODUCTION, *tables])


def _sections(section: type[BaseModel], path: str) -> list[tuple[str, type[BaseModel]]]:
    """Each section below one, with the first path that leads to it."""
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in section.model_fields.items():
        for inner in _models_in(field.annotation):
            here = f"{path}{name}"
            for place, model in [(here, inner), *_sections(inner, f"{here}.")]:
                if model not in [known for _, known in sections]:
                    sections.append((place, model))
    return sections


def _table(path: str, section: type[BaseModel]) -> str:
    meaning = " ".join((section.__doc__ or "").split())
    fields = section.model_fields.items()
    rows = [f"| `{name}` | {_kind(field)} | {_default(field)} | {_meaning(field)} |" for name, field in fields]
    return "\n".join(
        [f"## {path}\n\n{meaning}\n", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    )


def _meaning(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _kind(field: FieldInfo) -> str:
    return _type_text(field.annotation, field.metadata).replace("|", "\\|")


def _type_text(annotation: Any, metadata: list[Any]) -> str:
    """A type in plain text, with its bounds."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0], [part for item in inner[1:] for part in getattr(item, "metadata", [item])])
    if origin in (Union, types.UnionType):
        return " or ".join(_type_text(part, metadata) for part in inner if part is not type(None))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple:
        many = inner[-1] is Ellipsis
        return (
            f"list of {_type_text(inner[0], [])}" if many else f"[{', '.join([_type_text(inner[0], [])] * len(inner))}]"
        )
    if origin is dict:
        return f"{_type_text(inner[0], [])}: {_type_text(inner[1], [])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    signs = [(_SIGNS[type(part)], part) for part in metadata if type(part) in _SIGNS]
    limits = [(word, getattr(part, name)) for (word, name), part in signs]
    limits.sort(key=lambda limit: limit[0] in ("at most", "below"))
    bounds = [
        f"{word} {value:g}" if value < 1e5 else f"{word} {value:,.0f}"
        for word, value in limits
        if value < _OUT_OF_REACH
    ]
    return " ".join([_TYPE_NAMES.get(annotation, str(annotation)), ", ".join(bounds)]).strip()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
