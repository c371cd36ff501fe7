"""Label spaces: names and colors of the train ids, and lookup tables from one space to another."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbridge.errors import RecipeError
from domainbridge.types import IGNORE

__all__ = ["BUILT_IN", "SUBSETS", "LabelSpace", "label_space", "space_table", "table_by_names"]

_CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
_CAMVID = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
_IDD = {
    "drivable": (128, 64, 128),
    "non-drivable": (244, 35, 232),
    "living things": (220, 20, 60),
    "vehicles": (0, 0, 142),
    "roadside objects": (220, 220, 0),
    "far objects": (70, 70, 70),
    "sky": (70, 130, 180),
}


@dataclass(frozen=True)
class LabelSpace:
    """Train ids 0 .. K-1, their names and colors.

    Attributes:
        name: name in recipes.
        classes: K names.
        colors: K RGB triples.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """RGB per value, uint8 (256, 3); ignore and unused values are black."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colors
        return palette

    def index(self, name: str) -> int:
        """Train id of a class name.

        Raises:
            RecipeError: no class has this name.
        """
        if name not in self.classes:
            raise RecipeError(f"{self.name} has no class {name!r}; its classes are {', '.join(self.classes)}")
        return self.classes.index(name)


def _space(name: str, colors: Mapping[str, tuple[int, int, int]]) -> LabelSpace:
    return LabelSpace(name, tuple(colors), tuple(colors.values()))


BUILT_IN = {
    "cityscapes19": _space("cityscapes19", _CITYSCAPES),
    "camvid11": _space("camvid11", _CAMVID),
    "idd7": _space("idd7", _IDD),
}
_NOT_IN_SYNTHIA = ("terrain", "truck", "train")
_RARE_IN_SYNTHIA = ("wall", "fence", "pole")
SUBSETS = {
    "synthia16": tuple(name for name in _CITYSCAPES if name not in _NOT_IN_SYNTHIA),
    "synthia13": tuple(name for name in _CITYSCAPES if name not in _NOT_IN_SYNTHIA + _RARE_IN_SYNTHIA),
}
"""Classes of cityscapes19 that results on SYNTHIA are reported for."""
# Position = train id in cityscapes19, value = train id in the coarser space.
_FROM_CITYSCAPES = {
    "camvid11": (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10),
    "idd7": (0, 1, 5, 4, 4, 4, 4, 4, 5, 1, 6, 2, 2, 3, 3, 3, 3, 3, 3),
}


def label_space(
    name: str, classes: Sequence[str] | None = None, colors: Sequence[tuple[int, int, int]] | None = None
) -> LabelSpace:
    """A built-in space by its name, or a new space from its classes.

    Raises:
        RecipeError: no built-in space has this name.
    """
    if classes is None:
        if name not in BUILT_IN:
            raise RecipeError(
                f"label space {name!r} is unknown; built in are {', '.join(BUILT_IN)}, "
                "or define one with name, classes and colors"
            )
        return BUILT_IN[name]
    if colors is None:
        hues = [colorsys.hsv_to_rgb(i / len(classes), 0.75, 0.95 - 0.35 * (i % 2)) for i in range(len(classes))]
        colors = [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues]
    return LabelSpace(name, tuple(classes), tuple(colors))


def space_table(source: LabelSpace, destination: LabelSpace) -> NDArray[np.uint8]:
    """Lookup table uint8 (256,) from the train ids of one space to the train ids of another; other values become 255.

    Raises:
        RecipeError: no map between the two spaces is known.
    """
    table = np.full(256, IGNORE, np.uint8)
    if source == destination:
        table[: len(source)] = np.arange(len(source))
    elif source == BUILT_IN["cityscapes19"] and destination.name in _FROM_CITYSCAPES:
        table[: len(source)] = _FROM_CITYSCAPES[destination.name]
    else:
        raise RecipeError(
            f"no map is known from label space {source.name!r} to {destination.name!r}; give one "
            "(`label_map` for labels, `evaluation.map` for scoring)"
        )
    return table


def table_by_names(mapping: Mapping[str, str], source: LabelSpace, destination: LabelSpace) -> NDArray[np.uint8]:
    """Lookup table as for :func:`space_table`, from a map of class names; the value 'ignore' is allowed.

    Raises:
        RecipeError: a name is not in its label space.
    """
    table = np.full(256, IGNORE, np.uint8)
    for name, coarse in mapping.items():
        table[source.index(name)] = IGNORE if coarse == "ignore" else destination.index(coarse)
    return table
