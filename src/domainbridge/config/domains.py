"""The part of a recipe that is about data: label spaces, domains, sizes."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from domainbridge.config.base import PositiveInt, Section, Side
from domainbridge.config.class_list import as_color, ordered_classes
from domainbridge.config.spelled import shown

__all__ = [
    "FewConfig",
    "ImagesConfig",
    "LabelSpaceConfig",
    "LabelsConfig",
    "OracleConfig",
    "ResizeConfig",
    "SourceConfig",
    "TargetConfig",
    "ValidationConfig",
]

_Percent = Annotated[float, Field(ge=0, le=100)]
_Channel = Annotated[int, Field(ge=0, le=255)]
Pattern = Annotated[str, Field(pattern=r"^[^{}]*\{stem\}[^{}]*$")]
Color = tuple[_Channel, _Channel, _Channel]
License = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=200,
        description="license of the images and labels, for the model card, e.g. cc-by-4.0 or 'research only'; changes "
        "no result; default: not recorded",
    ),
]
ClassName = Annotated[str, Field(min_length=1, max_length=100)]


class LabelSpaceConfig(Section):
    """A label space of the user's own."""

    name: str = Field(min_length=1, max_length=100, description="name of the label space")
    classes: tuple[ClassName, ...] = Field(
        min_length=2,
        max_length=255,
        description="class names, train id 0 first; or {0: road, 1: car}, or {road: '#804080', car: '#00008e'}",
    )
    colors: tuple[Color, ...] | None = Field(
        None, description="RGB per class, [r, g, b] or '#rrggbb', or a map from class to color; default: a palette"
    )

    @model_validator(mode="before")
    @classmethod
    def _other_forms(cls, given: Any) -> Any:
        """Classes and colors as mappings, and colors as text."""
        if not isinstance(given, dict):
            return given
        form = dict(given)
        if isinstance(form.get("classes"), dict):
            ordered = ordered_classes(form["classes"])
            if "colors" in ordered and form.get("colors") is not None:
                raise ValueError("classes and colors both have colors; keep one of them")
            form |= ordered
        names, colors = form.get("classes"), form.get("colors")
        if isinstance(colors, dict) and isinstance(names, list | tuple):
            odd = [name for name in (*names, *colors) if (name in names) != (name in colors)]
            if odd:
                raise ValueError(f"colors: expected one color for each class, found {shown(odd)} on one side only")
            form["colors"] = colors = [colors[name] for name in names]
        if isinstance(colors, list | tuple):
            form["colors"] = [as_color(color) for color in colors]
        return form

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSpaceConfig":
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f"class names must differ from each other, found twice: {', '.join(twice)}")
        if "ignore" in self.classes:
            raise ValueError(
                "class names: 'ignore' stands for pixels without a class in every label_map; leave it out of classes, "
                "or give the class another name"
            )
        if self.colors is not None and len(self.colors) != len(self.classes):
            raise ValueError(
                f"{len(self.colors)} colors for {len(self.classes)} classes; give one color for each class, or leave "
                "colors out"
            )
        return self


class ResizeConfig(Section):
    """Size of a decoded image in training or evaluation."""

    width: Side = Field(description="pixels")
    height: Side = Field(description="pixels")
    keep_ratio: bool = Field(True, description="true: fit inside width x height; false: exactly width x height")
    min_side: Side | None = Field(None, description="with keep_ratio: least length of the short side, in pixels")


class LabelsConfig(Section):
    """Label files, and the train ids of their values."""

    labels: str | None = Field(
        None,
        description="path to the folder of labels, with the same relative names as the images; one-channel PNG; or an "
        "annotation, a file or a folder",
    )
    annotation_format: str | None = Field(
        None, description="format of an annotation, such as coco or labelme; default: found out"
    )
    unannotated: int | str | None = Field(
        None,
        description="annotation: class, train id or 'ignore' of pixels without annotation; default: the class "
        "'background' or 'bg', else 'ignore'",
    )
    label_space: str | None = Field(None, description="label space of the files; default: the recipe's")
    label_map: dict[int | str, int | str] | None = Field(
        None,
        description="value, range such as '1-10', '*' for all others, or '#rrggbb' of the files -> class name, train "
        "id or 'ignore'; unlisted values are ignored; annotation: name or number of a category -> class; unlisted "
        "categories are matched by name",
    )
    label_nearest: bool = Field(
        False,
        description="take an unlisted value or color for the nearest listed one: for JPEG or anti-aliased masks, whose "
        "edges have values between those of two classes",
    )
    label_resize: bool = Field(
        False, description="bring labels of another size to the size of their images, nearest neighbor"
    )
    label_pattern: Pattern = Field(
        "{stem}",
        description="path of a label below labels; {stem} is the part that image and label share, e.g. "
        "'{stem}_mask.png'",
    )

    @model_validator(mode="before")
    @classmethod
    def _labels_section(cls, given: Any) -> Any:
        """``labels: {path: masks, nearest: true}`` is another spelling of ``labels`` and ``label_nearest``."""
        if not isinstance(given, dict) or not isinstance(given.get("labels"), dict):
            return given
        section = {"labels" if key == "path" else f"label_{key}": value for key, value in given["labels"].items()}
        return {**{key: value for key, value in given.items() if key != "labels"}, **section}


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
    bands: tuple[PositiveInt, ...] | None = Field(
        None,
        description="bands to take as red, green and blue, e.g. [4, 3, 2], or one band as gray; the first band is 1; "
        "default: the file's only band, or its three",
    )
    scale: tuple[float, float] | None = Field(
        None, description="values that become black and white, e.g. [0, 4095]; needed for files of more than 8 bits"
    )
    percentiles: tuple[_Percent, _Percent] | None = Field(
        None, description="in place of scale: percentiles of each image and band, e.g. [2, 98]"
    )
    exif: Literal["upright", "raw"] = Field(
        "upright", description="upright: images are turned as their EXIF data say; raw: rows as stored, as labels are"
    )
    exclude_files: tuple[str, ...] = Field(
        (), description="stems to leave out (layout: file names without their ending)"
    )
    resize: ResizeConfig | None = Field(
        None, description="size at the network's input; default of a validation: the target's"
    )

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.bands is not None and len(self.bands) not in (1, 3):
            raise ValueError(f"bands: {list(self.bands)}; expected one band or three")
        if self.scale is not None and self.percentiles is not None:
            raise ValueError("scale and percentiles: give one of them")
        for key in ("scale", "percentiles"):
            limits = getattr(self, key)
            if limits is not None and not limits[0] < limits[1]:
                raise ValueError(f"{key}: {list(limits)}; expected [low, high] with low < high")
        return self


class SourceConfig(ImagesConfig, LabelsConfig):
    """A labeled domain."""

    name: str = Field(min_length=1, max_length=100, description="name in messages and results")
    dataset: str = Field("folder", description="'folder' or a known layout, see `domainbridge data layouts`")
    root: str = Field(description="path to the data set, relative to data_root")
    share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the labeled crops that come from this source, whatever its size; default: by size, see "
        "sampling.domain_temperature; with sampling.rare_classes the other crops come from the images of all sources",
    )
    license: License = None
    complete_background: bool = Field(
        False,
        description="several sources: the background of this one shows no class that only others annotate; default: it "
        "may, and is ignored if this source lacks such a class",
    )


class ValidationConfig(ImagesConfig, LabelsConfig):
    """Labeled images of a target for scores. No stage trains on them."""

    root: str | None = Field(None, description="path to the data set; default: the target's root")
    label_scale: float = Field(
        1.0, gt=0, le=1, description="size of the scored labels / size of the files; 0.5 for Mapillary, as published"
    )


class OracleConfig(ImagesConfig, LabelsConfig):
    """Labels of a target's training images. Only stage oracle reads them, and only with `oracle: true`."""

    root: str | None = Field(None, description="path to the data set; default: the target's root")


class FewConfig(ImagesConfig, LabelsConfig):
    """Labels of a few of a target's images, from which every stage learns as from a source."""

    root: str | None = Field(None, description="path to the data set; default: the target's root")
    share: float = Field(0.25, gt=0, lt=1, description="share of the labeled crops that come from these images")


class TargetConfig(ImagesConfig):
    """An unlabeled domain."""

    name: str = Field(min_length=1, max_length=100, description="name in messages and results")
    dataset: str = Field("folder", description="'folder' or a known layout, see `domainbridge data layouts`")
    root: str = Field(description="path to the data set, relative to data_root")
    license: License = None
    validation: ValidationConfig | None = Field(None, description="labeled images for scores; default: no scores")
    test: ValidationConfig | None = Field(
        None,
        description="labeled images that score the final model and the baselines only; the keys of validation, default "
        "of each but split and exclude_files: the validation's",
    )
    few: FewConfig | None = Field(
        None,
        description="labels of a few of the target's images, e.g. {labels: DIR, split: few.txt}: every stage learns "
        "from them as from a source; default of each key but split and exclude_files: the validation's",
    )
    oracle: OracleConfig | None = Field(
        None,
        description="labels of the training images for stage oracle; default of images, split and exclude_files: the "
        "target's",
    )
