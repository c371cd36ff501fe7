"""``STAGE/evaluation-images.npz``: pixel counts per image, reduced class maps; ``validation-images.npz``: the images.

Intervals, class shares and pictures of a report need no network and no data set with these: a class map of 320 pixels
takes 2 KB, while a second pass of all stages over the images would take as long as their scoring.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.files import ARRAYS_DAMAGED

__all__ = [
    "COUNTS_FILE",
    "PICTURES_FILE",
    "TEST_COUNTS_FILE",
    "ClassMap",
    "ImageCounts",
    "Picture",
    "StageImages",
    "kept_fingerprint",
    "packed_maps",
    "read_pictures",
    "read_stage_images",
]

COUNTS_FILE = "evaluation-images.npz"
TEST_COUNTS_FILE = "test-images.npz"
PICTURES_FILE = "validation-images.npz"

ClassMap = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageCounts:
    """What a stage's model predicted on the images of one target.

    Attributes:
        names: of the N images, relative to their common folder.
        counts: int64 (N, K + 1, K + 1): row = class of the label, the last one = no class; column = predicted class,
            the last one = no class of the space.
        labeled: whether the images have labels.
        total: images of the set; more than N where evenly spread ones were predicted.
        maps: index of an image -> its predicted classes, reduced, uint8; for at most 500 images.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    labeled: bool
    total: int
    maps: dict[int, ClassMap] = field(default_factory=dict)


@dataclass(frozen=True)
class StageImages:
    """What a stage's model predicted, image by image.

    Attributes:
        classes: K names of the space of the scores.
        colors: their RGB triples.
        targets: by name.
        exclude_classes: classes that the mean leaves out.
    """

    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    targets: dict[str, ImageCounts]
    exclude_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A reduced image: JPEG bytes, and the classes of its label, uint8, None without a label."""

    jpeg: bytes
    label: ClassMap | None


def read_stage_images(path: Path, fingerprint: str | None = None) -> StageImages | None:
    """The content of ``evaluation-images.npz``; None when the file is missing, damaged or of other scores.

    Args:
        path: of the file.
        fingerprint: of the scores that the counts must belong to; None: any.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            content = json.loads(str(arrays["content"]))
            if fingerprint not in (None, content["fingerprint"]):
                return None
            classes = tuple(content["classes"])
            targets = {
                target["name"]: _image_counts(arrays, number, target, len(classes) + 1)
                for number, target in enumerate(content["targets"])
            }
    except ARRAYS_DAMAGED:
        return None
    colors = tuple((int(red), int(green), int(blue)) for red, green, blue in content["colors"])
    return StageImages(classes, colors, targets, tuple(content["exclude_classes"]))


def read_pictures(path: Path) -> dict[str, dict[int, Picture]]:
    """The content of ``validation-images.npz``: pictures by target and index; empty when missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            names = json.loads(str(arrays["content"]))["targets"]
            return {name: _pictures(arrays, number) for number, name in enumerate(names)}
    except ARRAYS_DAMAGED:
        return {}


def kept_fingerprint(path: Path) -> str | None:
    """The fingerprint in a file of this module; None when missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return str(json.loads(str(arrays["content"]))["fingerprint"])
    except ARRAYS_DAMAGED:
        return None


def _image_counts(arrays: Any, number: int, target: dict[str, Any], size: int) -> ImageCounts:
    lengths = arrays[f"{number}.lengths"]
    counts = np.zeros((len(lengths), size * size), np.int64)
    counts[np.repeat(np.arange(len(lengths)), lengths), arrays[f"{number}.cells"]] = arrays[f"{number}.counts"]
    names = tuple(target["images"])
    if len(names) != len(lengths):
        raise ValueError("as many names as images")
    maps = _unpacked(arrays, number)
    return ImageCounts(names, counts.reshape(-1, size, size), target["labeled"], target["total"], maps)


def _pictures(arrays: Any, number: int) -> dict[int, Picture]:
    labels = _unpacked(arrays, number)
    ends = np.cumsum(arrays[f"{number}.lengths"], dtype=np.int64).tolist()
    content = arrays[f"{number}.jpeg"].tobytes()
    places = arrays[f"{number}.places"].tolist()
    return {
        place: Picture(content[start:end], labels.get(place))
        for place, start, end in zip(places, [0, *ends], ends, strict=False)
    }


def packed_maps(number: int, maps: Sequence[tuple[int, ClassMap]]) -> dict[str, Any]:
    """Class maps of several sizes as arrays of a file: (index of the image, map) of target ``number``."""
    return {
        f"{number}.mapped": np.array([place for place, _ in maps], np.uint32),
        f"{number}.sizes": np.array([array.shape for _, array in maps], np.uint32).reshape(-1, 2),
        f"{number}.maps": np.concatenate([np.zeros(0, np.uint8), *(array.ravel() for _, array in maps)]),
    }


def _unpacked(arrays: Any, number: int) -> dict[int, ClassMap]:
    sizes = arrays[f"{number}.sizes"].astype(np.int64)
    parts = np.split(arrays[f"{number}.maps"], np.cumsum(sizes.prod(1)))
    mapped = arrays[f"{number}.mapped"].tolist()
    return {place: part.reshape(size) for place, part, size in zip(mapped, parts, sizes.tolist(), strict=False)}
