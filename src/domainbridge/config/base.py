"""What every configuration class is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["PositiveInt", "Probability", "Section"]

PositiveInt = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of a recipe: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
