"""The part of a recipe that is about data: label spaces, domains, sizes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "LabelSource",
    "LabelSpaceDefinition",
    "PositiveInt",
    "Resize",
    "Section",
    "Source",
    "Target",
    "Validation",
]

PositiveInt = Annotated[int, Field(gt=0)]
_Channel = Annotated[int, Field(ge=0, le=255)]
Color = tuple[_Channel, _Channel, _Channel]


class Section(BaseModel):
    """Keys that are known, values that do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSpaceDefinition(Section):
    """A label space of the user's own."""

    name: str = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2, max_length=255, description="names, train id 0 first")
    colors: tuple[Color, ...] | None = Field(None, description="RGB per class; a palette is made when absent")

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSpaceDefinition":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names must differ from each other")
        if self.colors is not None and len(self.colors) != len(self.classes):
            raise ValueError(f"{len(self.colors)} colors for {len(self.classes)} classes")
        return self


class Resize(Section):
    """How a decoded image is brought to its training or evaluation size."""

    width: PositiveInt
    height: PositiveInt
    keep_ratio: bool = Field(True, description="fit inside width x height; false: exactly width x height")
    min_side: PositiveInt | None = Field(None, description="with keep_ratio: enlarge until the short side has it")


class LabelSource(Section):
    """Where labels are, and how their values become train ids."""

    labels: str | None = Field(None, description="folder of labels, mirrors the images folder; PNG, one channel")
    label_space: str | None = Field(None, description="the space that the files are in, when it is not the recipe's")
    label_map: dict[int | str, int | str] | None = Field(
        None,
        description="own id or '#rrggbb' -> class name, train id or 'ignore'; unlisted values are ignored",
    )


class Source(LabelSource):
    """A labelled domain."""

    name: str = Field(min_length=1)
    dataset: str = Field("folder", description="'folder' or a known layout: see `domainbridge data layouts`")
    root: str = Field(description="relative to data_root")
    images: str | None = Field(None, description="folder of images, relative to root")
    split: str | None = Field(
        None,
        description="folder: text file, relative to root, a stem under images per line; layout: its split",
    )
    resize: Resize | None = None


class Validation(LabelSource):
    """Labelled images of a target that are looked at, never trained on."""

    root: str | None = Field(None, description="default: the target's root")
    images: str | None = Field(None, description="default: the target's images")
    split: str | None = None
    resize: Resize | None = Field(None, description="size at the network's input; default: the target's resize")


class Target(Section):
    """An unlabelled domain."""

    name: str = Field(min_length=1)
    dataset: str = Field("folder", description="'folder' or a known layout")
    root: str = Field(description="relative to data_root")
    images: str | None = None
    split: str | None = None
    resize: Resize | None = None
    validation: Validation | None = None
