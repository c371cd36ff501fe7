"""What ``predict`` writes for each input, and under which endings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.label_ids import CITYSCAPES_IDS, SYNTHIA_IDS
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.errors import RecipeError, problem_list
from domainbridge.tools.predict_inputs import Kind

__all__ = ["CLASS_SHARES", "COCO", "POLYGON_FORMATS", "PredictOptions", "class_ids", "endings_of", "given_ids"]

POLYGON_FORMATS = ("geojson", "coco", "labelme")
CLASS_SHARES, COCO = "class-shares.csv", "coco.json"
"""Names of the files about all inputs."""
_KNOWN_IDS = {"cityscapes": CITYSCAPES_IDS, "gta5": CITYSCAPES_IDS, "synscapes": CITYSCAPES_IDS, "synthia": SYNTHIA_IDS}


@dataclass(frozen=True)
class PredictOptions:
    """Options of ``predict``.

    Attributes:
        overlay: the image with the classes' colors; for a video: a video.
        colors: the classes' colors alone; likewise.
        legend: names of the classes below the overlay.
        confidence: the largest probability.
        probabilities: those of all classes.
        disagreement: where the models of a round's two paths predict different classes.
        polygons: some of ``POLYGON_FORMATS``.
        min_area: pixels of the smallest polygon.
        tolerance: pixels that a simplified outline may be off.
        shares: a table of the class shares of every input.
        ids: value that is written per train id; None: the train ids.
        frames: of a video, the class maps of its frames.
        every: of a video, each frame of this number.
    """

    overlay: bool = False
    colors: bool = False
    legend: bool = False
    confidence: bool = False
    probabilities: bool = False
    disagreement: bool = False
    polygons: tuple[str, ...] = ()
    min_area: int = 64
    tolerance: float = 1.0
    shares: bool = False
    ids: tuple[int, ...] | None = None
    frames: bool = False
    every: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.polygons if name not in POLYGON_FORMATS]
        if unknown:
            raise RecipeError(f"polygons: {', '.join(unknown)} unknown; known are {', '.join(POLYGON_FORMATS)}")
        if self.every < 1 or self.min_area < 0 or self.tolerance < 0:
            raise RecipeError("predict: every must be at least 1, min_area and tolerance at least 0")
        if self.legend and not self.overlay:
            raise RecipeError("predict: a legend stands below an overlay; ask for the overlay too")

    @property
    def common(self) -> tuple[str, ...]:
        """Names of the files about all inputs."""
        return (*([CLASS_SHARES] if self.shares else []), *([COCO] if "coco" in self.polygons else []))

    @property
    def values(self) -> NDArray[np.uint8]:
        """Written value per train id, uint8 (256,)."""
        table = np.arange(256, dtype=np.uint8)
        if self.ids is not None:
            table[: len(self.ids)] = self.ids
        return table


def endings_of(kind: Kind, options: PredictOptions) -> Sequence[str]:
    """The endings of the files that an input of a kind leads to; an ending with / is a folder's."""
    if kind == "video":
        alone = not options.colors and not options.frames
        return [
            *(["_overlay.mp4"] if options.overlay or alone else []),
            *(["_colors.mp4"] if options.colors else []),
            *(["_frames/"] if options.frames else []),
        ]
    plain, photo = (".tif", ".tif") if kind == "map" else (".png", ".jpg")
    return [
        plain,
        *([f"_overlay{photo}"] if options.overlay else []),
        *([f"_colors{plain}"] if options.colors else []),
        *([f"_confidence{plain}"] if options.confidence else []),
        *([f"_disagreement{plain}"] if options.disagreement else []),
        *(["_probabilities.npz"] if options.probabilities else []),
        *([".geojson"] if "geojson" in options.polygons else []),
        *([".json"] if "labelme" in options.polygons else []),
    ]


def class_ids(given: str | Mapping[int | str, int | str], classes: Sequence[str]) -> tuple[int, ...]:
    """The value of each class: those of a known data set, or those of a label map (value to class name or train id).

    Args:
        given: name of a data set whose classes are those of ``cityscapes19``; or a label map as in a recipe.
        classes: of the model.

    Raises:
        RecipeError: the data set or a class is unknown, a class has no value, or two classes have the same.
    """
    if isinstance(given, str):
        pairs: Mapping[Any, Any] = {
            value: BUILT_IN["cityscapes19"].classes[id_] for value, id_ in _known(given).items()
        }
    else:
        pairs = given
    problems: list[str] = []
    values: dict[int, int] = {}
    for value, name in pairs.items():
        position = name if isinstance(name, int) else classes.index(name) if name in classes else None
        if name == "ignore" or (position is None and isinstance(given, str)):
            continue
        if position is None or position not in range(len(classes)):
            problems.append(f"{name!r} is no class of the model ({', '.join(classes)})")
        elif not isinstance(value, int) or not 0 <= value <= 254:
            problems.append(f"{name}: {value!r} is no whole number from 0 to 254")
        else:
            values.setdefault(position, value)
    problems += [f"class {name!r} has no value" for number, name in enumerate(classes) if number not in values]
    if problems:
        raise RecipeError(problem_list(f"ids {given if isinstance(given, str) else ''}".strip(), problems))
    return tuple(values[number] for number in range(len(classes)))


def given_ids(given: str | Mapping[Any, Any]) -> str | Mapping[int | str, int | str]:
    """The name of a known data set as it is; else a label map, see ``read_label_map``.

    Raises:
        RecipeError: neither.
    """
    if isinstance(given, str) and "=" not in given and not Path(given).is_file():
        return given
    from domainbridge.evaluation.label_maps import read_label_map  # imports torch

    return read_label_map(given, "ids")


def _known(name: str) -> Mapping[int, int]:
    if name not in _KNOWN_IDS:
        raise RecipeError(f"ids {name!r}: known are {', '.join(_KNOWN_IDS)}; or give VALUE=CLASS pairs")
    return _KNOWN_IDS[name]
