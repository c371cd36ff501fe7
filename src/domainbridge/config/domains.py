"""The part of a recipe that is about data: label spaces, domains, sizes."""

from typing import Annotated

from pydantic import Field, model_validator

from domainbridge.config.base import PositiveInt, Section

__all__ = [
    "ImagesConfig",
    "LabelSpaceConfig",
    "LabelsConfig",
    "ResizeConfig",
    "SourceConfig",
    "TargetConfig",
    "ValidationConfig",
]

_Channel = Annotated[int, Field(ge=0, le=255)]
Pattern = Annotated[str, Field(pattern=r"^[^{}]*\{stem\}[^{}]*$")]
Color = tuple[_Channel, _Channel, _Channel]


class LabelSpaceConfig(Section):
    """A label space of the user's own."""

    name: str = Field(min_length=1, description="name of the label space")
    classes: tuple[str, ...] = Field(min_length=2, max_length=255, description="class names, train id 0 first")
    colors: tuple[Color, ...] | None = Field(None, description="RGB per class; default: a generated palette")

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSpaceConfig":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("class names must differ from each other")
        if self.colors is not None and len(self.colors) != len(self.classes):
            raise ValueError(f"{len(self.colors)} colors for {len(self.classes)} classes")
        return self


class ResizeConfig(Section):
    """Size of a decoded image in training or evaluation."""

    width: PositiveInt = Field(description="pixels")
    height: PositiveInt = Field(description="pixels")
    keep_ratio: bool = Field(True, description="true: fit inside width x height; false: exactly width x height")
    min_side: PositiveInt | None = Field(None, description="with keep_ratio: least length of the short side, in pixels")


class LabelsConfig(Section):
    """Label files, and the train ids of their values."""

    labels: str | None = Field(
        None, description="path to the folder of labels, with the same relative names as the images; one-channel PNG"
    )
    label_space: str | None = Field(None, description="label space of the files; default: the recipe's")
    label_map: dict[int | str, int | str] | None = Field(
        None,
        description="value or '#rrggbb' of the files -> class name, train id or 'ignore'; unlisted values are ignored",
    )
    label_pattern: Pattern = Field(
        "{stem}",
        description="path of a label below labels; {stem} is the part that image and label share, e.g. "
        "'{stem}_mask.png'",
    )


class ImagesConfig(Section):
    """Image files."""

    images: str | None = Field(
        None, description="path to the folder of images, relative to root; default of a validation: the target's"
    )
    split: str | None = Field(
        None,
        description="folder: path to a text file, relative to root, with one stem per line; layout: name of a split",
    )
    image_pattern: Pattern = Field("{stem}", description="path of an image below images, e.g. '{stem}_rgb.jpg'")
    exclude_files: tuple[str, ...] = Field(
        (), description="stems to leave out (layout: file names without their ending)"
    )
    resize: ResizeConfig | None = Field(
        None, description="size at the network's input; default of a validation: the target's"
    )


class SourceConfig(ImagesConfig, LabelsConfig):
    """A labeled domain."""

    name: str = Field(min_length=1, description="name in messages and results")
    dataset: str = Field("folder", description="'folder' or a known layout, see `domainbridge data layouts`")
    root: str = Field(description="path to the data set, relative to data_root")


class ValidationConfig(ImagesConfig, LabelsConfig):
    """Labeled images of a target for scores. No stage trains on them."""

    root: str | None = Field(None, description="path to the data set; default: the target's root")
    label_scale: float = Field(
        1.0, gt=0, le=1, description="size of the scored labels / size of the files; 0.5 for Mapillary, as published"
    )


class TargetConfig(ImagesConfig):
    """An unlabeled domain."""

    name: str = Field(min_length=1, description="name in messages and results")
    dataset: str = Field("folder", description="'folder' or a known layout, see `domainbridge data layouts`")
    root: str = Field(description="path to the data set, relative to data_root")
    validation: ValidationConfig | None = Field(None, description="labeled images for scores; default: no scores")
