"""The part of a recipe that is about data: label spaces, domains, sizes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ImageSource",
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
Pattern = Annotated[str, Field(pattern=r"^[^{}]*\{stem\}[^{}]*$")]
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
    label_pattern: Pattern = Field(
        "{stem}", description="label path below labels; {stem} is what image and label share, e.g. '{stem}_mask.png'"
    )


class ImageSource(Section):
    """Where images are."""

    images: str | None = Field(
        None, description="folder of images, relative to root; a validation's default: the target's"
    )
    split: str | None = Field(
        None,
        description="folder: text file, relative to root, a stem under images per line; layout: its split",
    )
    image_pattern: Pattern = Field("{stem}", description="image path below images, e.g. '{stem}_rgb.jpg'")
    exclude: tuple[str, ...] = Field((), description="stems (layout: file names without suffix) to leave out")
    resize: Resize | None = Field(None, description="size at the network's input; a validation's default: the target's")


class Source(ImageSource, LabelSource):
    """A labelled domain."""

    name: str = Field(min_length=1)
    dataset: str = Field("folder", description="'folder' or a known layout: see `domainbridge data layouts`")
    root: str = Field(description="relative to data_root")


class Validation(ImageSource, LabelSource):
    """Labelled images of a target that are looked at, never trained on."""

    root: str | None = Field(None, description="default: the target's root")
    label_scale: float = Field(
        1.0, gt=0, le=1, description="labels are scored at this share of their size; 0.5 for Mapillary, as published"
    )


class Target(ImageSource):
    """An unlabelled domain."""

    name: str = Field(min_length=1)
    dataset: str = Field("folder", description="'folder' or a known layout")
    root: str = Field(description="relative to data_root")
    validation: Validation | None = None
