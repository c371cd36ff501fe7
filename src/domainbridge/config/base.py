"""What every configuration class is made of."""

import datetime
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

__all__ = ["ODD_VALUES", "Positive", "PositiveInt", "Probability", "Section", "Side"]

Positive = Annotated[int, Field(gt=0)]
"""For a field with an upper bound of its own."""
PositiveInt = Annotated[int, Field(gt=0, le=10**9)]
Side = Annotated[int, Field(gt=0, le=20_000)]
"""Width or height in pixels. Larger images do not fit into the memory of a machine."""
Probability = Annotated[float, Field(ge=0, le=1)]

ODD_VALUES = "odd_values"
"""Type of the error about values that pydantic would convert silently. Its context has ``places`` and ``values``."""


class Section(BaseModel):
    """A section of a recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _nothing_odd(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes ``yes`` for the number 1 and bytes for text, and no path may hold a NUL."""
        kinds = _leaf_types(cls.model_fields[str(info.field_name)].annotation)
        if any(issubclass(kind, BaseModel) for kind in kinds):
            return value  # checked by its own section
        odd = [(place, leaf) for place, leaf in _leaves(value) if _is_odd(leaf, kinds)]
        if odd:
            places, values = zip(*odd, strict=True)
            raise PydanticCustomError(ODD_VALUES, "odd values", {"places": places, "values": values})
        return value


def _is_odd(leaf: object, kinds: set[type]) -> bool:
    if isinstance(leaf, str):
        return "\0" in leaf
    if isinstance(leaf, bool):
        return (bool not in kinds and str not in kinds) or (int in kinds and bool not in kinds)
    return isinstance(leaf, bytes | bytearray | datetime.date)


def _leaf_types(annotation: Any) -> set[type]:
    """The plain types and sections that an annotation is made of."""
    inner = get_args(annotation)
    if not inner:
        return {annotation} if isinstance(annotation, type) else set()
    return {kind for part in inner for kind in _leaf_types(part)}


def _leaves(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every plain value inside lists and sections, keys of sections too; a list that contains itself is seen once."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    seen: set[int] = set()
    while waiting:
        place, node = waiting.pop()
        if not isinstance(node, list | tuple | dict):
            yield place, node
            continue
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            yield from (((*place, key), key) for key in node)
            waiting += [((*place, key), inner) for key, inner in reversed(node.items())]
        else:
            waiting += [((*place, number), node[number]) for number in range(len(node) - 1, -1, -1)]
