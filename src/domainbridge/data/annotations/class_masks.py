"""One mask per class: ``masks/CLASS/a.png`` or ``masks/a_CLASS.png``. Values other than 0 are of the class.

Classes are drawn in the order of their names.
"""

import re
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import first_names, names_below, normal, read_npy
from domainbridge.data.annotations.shapes import Mask
from domainbridge.data.decode import read_image
from domainbridge.data.storage.virtual import parsed, set_path
from domainbridge.data.walk import IMAGE_SUFFIXES
from domainbridge.errors import DataError

__all__ = ["ClassMasks", "drawn_masks", "read_mask"]

_NO_CLASSES = frozenset(
    [
        "color",
        "colour",
        "label",
        "labels",
        "labelids",
        "instanceids",
        "trainids",
        "labeltrainids",
        "mask",
        "masks",
        "gt",
        "gtfine",
        "overlay",
        "image",
        "img",
        "rgb",
        "leftimg8bit",
        "train",
        "val",
        "test",
        "images",
        "annotations",
        "panoptic",
        "depth",
        "vis",
        "pred",
    ]
)
_LOOKED_AT = 400
_Groups = dict[str, list[tuple[str, Path]]]


@register_format("class-masks")
class ClassMasks:
    """A folder per class, or the class at the end of the name."""

    title = "one mask per class"
    background = True

    def find(self, path: Path) -> Path | None:
        if not path.is_dir():
            return None
        groups = _groups(path, _some_names(path))
        names = {normal(name) for masks in groups.values() for name, _ in masks}
        if not 2 <= len(names) <= 254 or names & _NO_CLASSES:
            return None
        if 2 * sum(len(masks) > 1 for masks in groups.values()) < len(groups):
            return None
        looked = [mask for masks in islice(groups.values(), 3) for _, mask in masks]
        return path if all(_is_binary(mask) for mask in looked[:6]) else None

    def index(self, path: Path) -> Index:
        groups = _groups(path, _image_names(path))
        names = sorted({name for masks in groups.values() for name, _ in masks})
        entries, problems = [], []
        for stem, masks in groups.items():
            try:
                entries.append(Entry((stem,), set_path([mask for _, mask in sorted(masks)])))
            except ValueError as error:
                problems.append(f"masks: {error}; rename the files")
        return Index(tuple(Category(name) for name in names), tuple(entries), problems=tuple(problems))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        class_of: dict[Path, str] = parsed(root, "class masks", _class_of)
        return drawn_masks([(class_of.get(mask, ""), mask) for mask in parts])


def drawn_masks(masks: list[tuple[str, Path]]) -> Drawing:
    """Masks of one image, each with its category.

    Raises:
        DataError: a mask is unreadable, or sizes differ.
    """
    areas = [(name, read_mask(path)) for name, path in masks]
    size = areas[0][1].shape
    for (_, area), (_, path) in zip(areas, masks, strict=True):
        if area.shape != size:
            raise DataError(
                f"{path}: {area.shape[1]}x{area.shape[0]} pixels, but {masks[0][1]} has {size[1]}x{size[0]}"
            )
    return Drawing(size[0], size[1], tuple((name, Mask(area)) for name, area in areas))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Whether a pixel has a value other than 0 in any color, bool (height, width).

    Raises:
        DataError: the file is unreadable.
    """
    if path.suffix.lower() != ".npy":
        return np.asarray(read_image(path).any(axis=2), np.bool_)
    array = read_npy(path)
    if array.ndim != 2:
        raise DataError(f"{path}: expected a mask with 2 dimensions, found the shape {array.shape}")
    return array > 0


def _class_of(folder: Path) -> dict[Path, str]:
    """Mask -> class."""
    return {mask: name for masks in _groups(folder, _image_names(folder)).values() for name, mask in masks}


def _image_names(folder: Path) -> list[str]:
    return [name for name in names_below(folder) if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def _some_names(folder: Path) -> list[str]:
    """The first names in the folder itself and in each of its subfolders."""
    places = [folder, *sorted(sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))]
    names = [f"{sub.name}/{name}" for sub in places[1:] for name in first_names(sub, 50)]
    names += sorted(islice((p.name for p in folder.iterdir() if p.is_file()), _LOOKED_AT))
    return [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def _groups(folder: Path, names: list[str]) -> _Groups:
    """Stem -> class and mask of every file."""
    groups: _Groups = defaultdict(list)
    bodies = {name: name.rpartition(".")[0] for name in names}
    rests = Counter(body.partition("/")[2] for body in bodies.values())
    if names and all("/" in name for name in names) and max(rests.values()) > 1:
        for name, body in bodies.items():
            head, _, rest = body.partition("/")
            groups[rest].append((head, folder / name))
        return groups
    counts = Counter(ending for body in bodies.values() for _, ending in _splits(body))
    for name, body in bodies.items():
        splits = _splits(body)
        if splits:  # "a_traffic_light": the longest ending that is as frequent as the last word alone
            stem, ending = next(s for s in reversed(splits) if counts[s[1]] == counts[splits[0][1]])
            groups[stem].append((ending, folder / name))
    return groups


def _splits(body: str) -> list[tuple[str, str]]:
    """Stem and class by every possible place, the shortest class first; a class has no word of digits alone."""
    splits = []
    for match in reversed(list(re.finditer(r"[_-]", body))):
        stem, ending = body[: match.start()], body[match.end() :]
        if (
            "/" in ending
            or not stem
            or stem.endswith("/")
            or any(w.isdigit() or not w for w in re.split(r"[_-]", ending))
        ):
            break
        splits.append((stem, ending))
    return splits


def _is_binary(path: Path) -> bool:
    try:
        image = read_image(path)
    except DataError:
        return False
    return len(np.unique(image[::2, ::2].reshape(-1, 3), axis=0)) <= 2
