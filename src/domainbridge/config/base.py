"""What every configuration class is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Count", "PixelCount", "PositiveInt", "Probability", "Section"]

PositiveInt = Annotated[int, Field(gt=0, le=2**31 - 1)]
Count = Annotated[int, Field(gt=0)]
"""A positive whole number whose key states its own upper limit: of two limits pydantic checks the type's."""
PixelCount = Annotated[int, Field(gt=0, le=16_384)]
"""A side of an image at the network."""
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of a recipe: unknown keys are refused, values do not change, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _texts_without_nul(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for key, value in given.items():
                if not isinstance(key, str):
                    raise ValueError(f"the key {key!r} is no text")
                if isinstance(value, str) and "\0" in value:
                    raise ValueError(f"{key}: a text cannot contain a NUL character")
        return given
