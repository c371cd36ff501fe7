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
_INPUT = "image: RGB in [0, 1], float32 (batch, 3, height, width), any size and batch; normalization is inside"
_OUTPUT = (
    "logits: float32 (batch, classes, h, w), below the size of the image; class map: bilinear to the size of the image "
    "(half-pixel centers), then argmax"
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
    """

    label_space: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    resize: tuple[int, int, bool, int | None] | None
    image: ImageRule = ImageRule()
    precision: str = "float32"
    smallest_side: int = 1
    training_sizes: TrainingSizes | None = field(default=None, repr=False)

    @property
    def space(self) -> LabelSpace:
        """Names and colors of the classes."""
        return LabelSpace(self.label_space, self.classes, self.colors)

    @property
    def resize_rule(self) -> ResizeRule | None:
        """The size that images get before the network."""
        return ResizeRule(*self.resize) if self.resize else None

    def to_properties(self) -> dict[str, str]:
        """The description as names and JSON texts, for ONNX's ``metadata_props``."""
        values = {name: json.dumps(value) for name, value in asdict(self).items()}
        return {"domainbridge_format": str(_FORMAT), "input": _INPUT, "output": _OUTPUT, **values}

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
            config = cls(**values)
            if not 0 < len(config.classes) == len(config.colors):
                raise ValueError(f"{len(config.classes)} classes and {len(config.colors)} colors")
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{where}: its description is damaged ({error}); export the model folder again") from error
        return config
