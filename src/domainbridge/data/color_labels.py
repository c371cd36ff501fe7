"""Decoder from label files with colors to train ids."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.reading import read_npy
from domainbridge.data.bands import ImageRule, decode_bands
from domainbridge.data.decode import packed_colors, read_image
from domainbridge.data.headers import read_header
from domainbridge.data.storage.tar import read_bytes
from domainbridge.errors import FileError
from domainbridge.files import digest_bytes
from domainbridge.types import IGNORE

__all__ = ["ColorLabels", "color_labels"]

_AS_STORED = ImageRule(exif="raw")
_DEEPER = 257
"""An 8-bit value times 257 is the same value of 16 bits."""


@dataclass(frozen=True)
class ColorLabels:
    """Labels with the class as a color; unlisted colors are ignored.

    Attributes:
        colors: RGB as 24-bit numbers, ascending, int32 (n,).
        train_ids_of_colors: train id of each color, uint8 (n,).
        nearest: take an unlisted color for the nearest listed one (squared distance in RGB).
    """

    colors: NDArray[np.int32]
    train_ids_of_colors: NDArray[np.uint8]
    nearest: bool = False

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return digest_bytes(self.colors.tobytes(), self.train_ids_of_colors.tobytes(), b"nearest" * self.nearest)

    def compose(self, table: NDArray[np.uint8]) -> "ColorLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        return replace(self, train_ids_of_colors=table[self.train_ids_of_colors])

    def with_nearest(self) -> "ColorLabels":
        """Decoder that takes every color for the nearest listed one."""
        return replace(self, nearest=True)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: the file is unreadable.
        """
        return self.train_ids(path, self.values(path))

    def values(self, path: Path) -> NDArray[np.int32]:
        """The stored colors as 24-bit numbers, int32 (height, width).

        Raises:
            DataError: the file is unreadable.
        """
        return packed_colors(_colors_of(path))

    def train_ids(self, path: Path, values: NDArray[np.int32]) -> NDArray[np.uint8]:
        """The train id of each color; ``path`` is not used."""
        del path
        position, known = self._positions(values)
        if self.nearest and not known.all():
            colors, inverse = np.unique(values[~known], return_inverse=True)
            position[~known] = self._nearest(colors)[inverse.ravel()]
            return self.train_ids_of_colors[position]
        return np.where(known, self.train_ids_of_colors[position], np.uint8(IGNORE))

    def value_counts(self, values: NDArray[np.int32]) -> dict[int, int]:
        """Color as a 24-bit number -> number of pixels, of all colors that occur."""
        position, known = self._positions(values)
        counts = np.bincount(position[known], minlength=len(self.colors)).tolist()
        listed = {int(color): count for color, count in zip(self.colors, counts, strict=True) if count}
        others, of_others = np.unique(values[~known], return_counts=True)
        return {**listed, **dict(zip(others.tolist(), of_others.tolist(), strict=True))}

    def means(self, value: int) -> bool:
        """Whether a color is listed, or taken for a listed one."""
        return self.nearest or bool(np.isin(value, self.colors))

    def describe(self, value: int) -> str:
        """A color as recipes write it."""
        return f"'#{value:06x}'"

    def nearest_listed(self, value: int) -> str:
        """The listed color nearest to another one, as recipes write it."""
        return self.describe(int(self.colors[self._nearest(np.array([value], np.int32))[0]]))

    def _positions(self, values: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Position of each value in ``colors``, and whether the color there is the same."""
        position = np.searchsorted(self.colors, values).clip(max=len(self.colors) - 1)
        return position, self.colors[position] == values

    def _nearest(self, colors: NDArray[np.int32]) -> NDArray[np.intp]:
        """Positions of the nearest listed colors; a few thousand colors at a time."""
        listed = _channels(self.colors)
        parts = np.array_split(colors, max(len(colors) * len(listed) // 2**22, 1))
        return np.concatenate([((_channels(part)[:, None] - listed) ** 2).sum(2).argmin(1) for part in parts])


def _colors_of(path: Path) -> NDArray[np.uint8]:
    """RGB as stored, uint8 (height, width, 3); 8-bit colors that a program wrote with 16 bits are 8-bit colors again.

    Raises:
        FileError: unreadable, or no colors of 8 bits.
    """
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3:
            return array
        reason = f"expected colors, an array uint8 (height, width, 3), found {array.dtype} {array.shape}"
        raise FileError(path, reason, "arrays of no colors")
    try:
        return read_image(path, _AS_STORED)
    except FileError as error:
        header = read_header(path)
        if header.plain and not (header.format == "TIFF" and header.alpha):  # damaged, rather than of other bands
            raise
        bands = decode_bands(path, read_bytes(path), header) if header.dtype == "uint16" else np.ones((1, 1, 3))
        if bands.shape[2] - header.alpha == 3 and not (bands % _DEEPER).any():
            return (bands[..., :3] // _DEEPER).astype(np.uint8)
        reason = f"expected a label of 8-bit colors, found {header}; save the labels as 8-bit RGB"
        raise FileError(path, reason, f"label of {header}") from error


def color_labels(train_ids: Mapping[int, int]) -> ColorLabels:
    """Decoder for a map from RGB as 24-bit numbers to train ids."""
    colors = sorted(train_ids)
    return ColorLabels(np.asarray(colors, np.int32), np.asarray([train_ids[c] for c in colors], np.uint8))


def _channels(colors: NDArray[np.int32]) -> NDArray[np.int32]:
    """24-bit numbers as (n, 3)."""
    return np.stack([colors >> 16 & 255, colors >> 8 & 255, colors & 255], axis=-1)
