"""What an exported file says about itself: classes, colors, size and image rule; read without torch."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from domainbridge.data.bands import ImageRule
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import ModelError

__all__ = ["EXTRA_FILE", "SUFFIXES", "ExportedConfig", "is_exported"]

SUFFIXES = {".onnx": "onnx", ".pt2": "torch"}
"""Ending of an exported file -> format."""
EXTRA_FILE = "domainbridge.json"
"""Name of the description inside a file of torch.export."""
_FORMAT = 1
_INPUT = "image: RGB in [0, 1], float32 ({batch}, 3, {height}, {width}), {which}; normalization is inside"
_OUTPUT = (
    "logits: float32 (batch, classes, h, w), below the size of the image; class map: bilinear to the size of the image "
    "(half-pixel centers), then argmax; best with sides that are multiples of `grid`: continue other images by their "
    "last row and column, and cut the class map"
)


def is_exported(path: object) -> bool:
    """Whether a path ends as an exported file does."""
    return str(path).lower().endswith(tuple(SUFFIXES))


@dataclass(frozen=True)
class ExportedConfig:
    """The description of an exported file.

    Attributes:
        label_space: name of the space of its classes.
        classes: K names.
        colors: K RGB triples.
        resize: (width, height, keep_ratio, min_side) that images get before the network, as in training; or None.
        image: how image files become 8-bit RGB.
        precision: float32, float16 or int8.
        smallest_side: pixels of the shortest side that the network takes.
        training_sizes: of the images of training; None where nothing is known. They change no result.
        size: (height, width) that the network takes, and no other; None: any size.
        batch: images that the network takes at once; None: any number.
        padding: color around smaller images where the size is fixed, RGB in [0, 1]: the mean that is subtracted.
        grid: images are continued until their sides are multiples of it; 1: never, as in files of earlier versions.
    """

    label_space: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    resize: tuple[int, int, bool, int | None] | None
    image: ImageRule = ImageRule()
    precision: str = "float32"
    smallest_side: int = 1
    training_sizes: TrainingSizes | None = field(default=None, repr=False)
    size: tuple[int, int] | None = field(default=None, repr=False)
    batch: int | None = field(default=None, repr=False)
    padding: tuple[float, float, float] = field(default=(0.0, 0.0, 0.0), repr=False)
    grid: int = field(default=1, repr=False)

    @property
    def space(self) -> LabelSpace:
        """Names and colors of the classes."""
        return LabelSpace(self.label_space, self.classes, self.colors)

    @property
    def resize_rule(self) -> ResizeRule | None:
        """The size that images get before the network."""
        return ResizeRule(*self.resize) if self.resize else None

    @property
    def remark(self) -> str | None:
        """How a file of a fixed size predicts images of other sizes, as a sentence; None for any size."""
        if self.size is None:
            return None
        height, width = self.size
        return (
            f"the network of this file takes images of height {height} and width {width} only: larger ones are "
            "predicted in overlapping windows of this size, smaller ones are padded"
        )

    def to_properties(self) -> dict[str, str]:
        """The description as names and JSON texts, for ONNX's ``metadata_props``."""
        values = {name: json.dumps(value) for name, value in asdict(self).items()}
        height, width = self.size or ("height", "width")
        which = "any size" if self.size is None else "this size only"
        told = _INPUT.format(batch=self.batch or "batch", height=height, width=width, which=which)
        return {"domainbridge_format": str(_FORMAT), "input": told, "output": _OUTPUT, **values}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], where: str) -> "ExportedConfig":
        """The opposite of :meth:`to_properties`.

        Raises:
            ModelError: the file was not written by ``domainbridge export``, or by another version, or is damaged.
        """
        if "domainbridge_format" not in properties:
            raise ModelError(f"{where}: not written by `domainbridge export`: the file does not name its classes")
        if properties["domainbridge_format"] != str(_FORMAT):
            raise ModelError(
                f"{where}: written in format {properties['domainbridge_format']}; this version reads format {_FORMAT}; "
                "export the model folder again"
            )
        try:
            values: dict[str, Any] = {
                each.name: json.loads(properties[each.name]) for each in fields(cls) if each.name in properties
            }
            values["classes"] = tuple(values["classes"])
            values["colors"] = tuple((r, g, b) for r, g, b in values["colors"])
            values["resize"] = tuple(values["resize"]) if values["resize"] else None
            values["image"] = ImageRule.from_json(values["image"])
            values["training_sizes"] = TrainingSizes.from_json(values.get("training_sizes"))
            values |= _fixed(values)
            config = cls(**values)
            if not 0 < len(config.classes) == len(config.colors):
                raise ValueError(f"{len(config.classes)} classes and {len(config.colors)} colors")
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{where}: its description is damaged ({error}); export the model folder again") from error
        return config


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What belongs to a fixed size.

    Raises:
        ValueError: no sizes.
    """
    fixed: dict[str, Any] = {}
    if values.get("size") is not None:
        height, width = values["size"]
        fixed["size"] = height, width
    if values.get("padding") is not None:
        red, green, blue = values["padding"]
        fixed["padding"] = float(red), float(green), float(blue)
    numbers = [*fixed.get("size", ()), *(values[key] for key in ("batch", "grid") if values.get(key) is not None)]
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"size {values.get('size')}, batch {values.get('batch')}, grid {values.get('grid')}")
    return fixed
