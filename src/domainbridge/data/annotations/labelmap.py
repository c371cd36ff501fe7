"""Painted masks with ``labelmap.txt``: the export "Segmentation mask" of CVAT, and Pascal VOC written by datumaro.

A line of ``labelmap.txt`` is ``name:red,green,blue:parts:actions``. A name without a color has its color of the VOC
palette. Masks without colors hold the numbers of the lines. Colors without a name, the boundary of VOC too, are void.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, Painted, register_format
from domainbridge.data.annotations.reading import beginning, damage_named, first_names, names_below
from domainbridge.data.decode import packed_colors, read_image
from domainbridge.data.index_image import read_index_image
from domainbridge.data.storage.tar import open_path
from domainbridge.data.storage.virtual import parsed
from domainbridge.data.walk import IMAGE_SUFFIXES

__all__ = ["Labelmap", "voc_color"]

_FILE = "labelmap.txt"
_EXPECTED = "lines name:red,green,blue:parts:actions"
_MASKS = "SegmentationClass"


@register_format("labelmap")
class Labelmap:
    """A folder of masks with ``labelmap.txt`` in it or beside it."""

    title = "masks with labelmap.txt (CVAT, Pascal VOC)"
    background = False

    def find(self, path: Path) -> Path | None:
        folder = path.parent if path.name.lower() == _FILE else path
        folder = folder / _MASKS if (folder / _MASKS).is_dir() else folder
        labelmap = _labelmap(folder)
        if labelmap is None or ":" not in beginning(labelmap) or not folder.is_dir():
            return None
        return folder if any(_is_image(name) for name in first_names(folder, 1000)) else None

    def index(self, path: Path) -> Index:
        labelmap = _labelmap(path)
        assert labelmap is not None
        names = list(parsed(labelmap, "labelmap", _read))
        entries = tuple(Entry((name.rpartition(".")[0],), path / name) for name in names_below(path) if _is_image(name))
        return Index(tuple(Category(name, number) for number, name in enumerate(names)), entries, (labelmap,))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        colors: dict[str, int] = parsed(parts[0], "labelmap", _read)
        names = tuple(colors)
        index = _by_number(parts[1], len(names))
        unnamed: dict[int, int] = {}
        if index is None:
            packed = packed_colors(read_image(parts[1]))
            order = np.argsort(list(colors.values()))
            ascending = np.array(list(colors.values()), np.int32)[order]
            place = np.searchsorted(ascending, packed).clip(max=len(names) - 1)
            index = np.where(ascending[place] == packed, order[place], len(names)).astype(np.uint16)
            others, counts = np.unique(packed[index == len(names)], return_counts=True)
            unnamed = dict(zip(others.tolist(), counts.tolist(), strict=True))
        return Drawing(index.shape[0], index.shape[1], painted=Painted(index, names), unnamed=unnamed)


def voc_color(number: int) -> int:
    """RGB of the palette of Pascal VOC as a 24-bit number."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return channels[0] << 16 | channels[1] << 8 | channels[2]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _labelmap(folder: Path) -> Path | None:
    return next((p for p in (folder / _FILE, folder.parent / _FILE) if p.is_file()), None)


def _by_number(path: Path, count: int) -> NDArray[np.uint16] | None:
    """Numbers of lines, if the mask has gray values and no colors."""
    with damage_named(path, "an image"), open_path(path) as file, Image.open(file) as image:
        if image.mode not in ("L", "1", "I", "I;16"):
            return None
    values = read_index_image(path, spread=())
    return np.where(values < count, values, count).astype(np.uint16)


def _read(path: Path) -> dict[str, int]:
    """Name -> RGB as a 24-bit number."""
    with damage_named(path, _EXPECTED):
        colors: dict[str, int] = {}
        for line in beginning(path, 2**20).splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, _, rest = line.partition(":")
            if name.strip() in colors:
                raise ValueError(f"two lines have the name {name.strip()!r}")
            color = rest.partition(":")[0].strip()
            red, green, blue = (int(v) for v in color.split(",")) if color else (0, 0, 0)
            if not all(0 <= value < 256 for value in (red, green, blue)):
                raise ValueError(f"{line!r}: a color beyond 255")
            colors[name.strip()] = red << 16 | green << 8 | blue if color else voc_color(len(colors))
        if not colors:
            raise ValueError("no line")
        if len(set(colors.values())) < len(colors):
            raise ValueError("two names have the same color")
        return colors
