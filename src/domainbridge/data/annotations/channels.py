"""Masks in channels: channel k of a file is the mask of class k.

``.npy`` of height x width x channels (or channels first: the shortest side is that of the channels), PNG or TIFF of
several channels, TIFF of several pages. A pixel is of a class if its value is above 0, for fractions from 0.5 on; later
channels cover earlier ones.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import damage_named, first_file, names_below, read_npy
from domainbridge.data.annotations.shapes import Mask
from domainbridge.data.storage.tar import read_bytes
from domainbridge.errors import DataError

__all__ = ["Channels"]

_SUFFIXES = (".npy", ".png", ".tif", ".tiff")


@register_format("channels")
class Channels:
    """A folder of files with a channel per class. Found for .npy with three dimensions; images must be named so."""

    title = "masks in channels"
    background = True

    def find(self, path: Path) -> Path | None:
        example = first_file(path, ".npy", at_most=50)
        if example is None:
            return None
        try:
            with example.open("rb") as file:
                np.lib.format.read_magic(file)
                shape = np.lib.format.read_array_header_1_0(file)[0]
        except Exception:  # NumPy evaluates the header as Python: a damaged one fails in any way
            return None
        return path if len(shape) == 3 and 1 not in shape else None

    def index(self, path: Path) -> Index:
        names = [name for name in names_below(path) if name.lower().endswith(_SUFFIXES)]
        count = _channels(path / names[0]).shape[2] if names else 0
        entries = tuple(Entry((name.rpartition(".")[0],), path / name) for name in names)
        return Index(tuple(Category(str(number), number) for number in range(count)), entries)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        masks = _channels(parts[0])
        height, width, count = masks.shape
        return Drawing(height, width, tuple((str(k), Mask(masks[..., k])) for k in range(count)))


def _channels(path: Path) -> NDArray[np.bool_]:
    """Masks, bool (height, width, channels)."""
    values = read_npy(path) if path.suffix.lower() == ".npy" else _image_channels(path)
    if values.ndim != 3:
        raise DataError(f"{path}: expected height x width x channels, found the shape {values.shape}")
    if path.suffix.lower() == ".npy" and values.shape[0] < min(values.shape[1:]):
        values = np.moveaxis(values, 0, 2)
    if values.shape[2] > 255:
        raise DataError(f"{path}: {values.shape[2]} channels; expected at most 255, one per class")
    return values >= 0.5 if values.dtype.kind == "f" else values > 0


def _image_channels(path: Path) -> NDArray[Any]:
    with damage_named(path, "a PNG or TIFF of several channels or pages"):
        content = read_bytes(path)
        try:
            with Image.open(io.BytesIO(content)) as image:
                if getattr(image, "n_frames", 1) > 1:
                    return np.stack([np.array(page) for page in ImageSequence.Iterator(image)], axis=2)
                if image.mode in ("RGB", "RGBA", "LA", "CMYK"):
                    return np.array(image)
        except UnidentifiedImageError:  # more channels than Pillow knows
            pass
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.ndim != 3:
            raise ValueError("no image of several channels")
        return decoded[..., [2, 1, 0, *range(3, decoded.shape[2])]] if decoded.shape[2] in (3, 4) else decoded
