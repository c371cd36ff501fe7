"""From files to arrays, with messages that name the file.

Pillow, not OpenCV: it raises on a truncated file where OpenCV returns a half-grey image, and it keeps the
indices of a palette PNG.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from domainbridge.data.spaces import LabelSpace
from domainbridge.errors import DataError, RecipeError
from domainbridge.types import IGNORE

__all__ = ["IdLabels", "LabelDecoder", "PaintedLabels", "label_map_decoder", "read_image", "read_index_image"]

_INDEX_MODES = ("L", "P", "1")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L")
_HEX = re.compile(r"^#[0-9a-fA-F]{6}$")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode to RGB, uint8 (height, width, 3).

    Raises:
        DataError: missing, unreadable or truncated.
    """
    return _decode(path, "RGB")


def read_index_image(path: Path) -> NDArray[np.uint8]:
    """Decode a one-channel image to its stored values, uint8 (height, width); palettes are not applied.

    Raises:
        DataError: as for images, or more than one channel, or more than 8 bits.
    """
    return _decode(path, None)


def _decode(path: Path, mode: str | None) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as opened:
            image: Image.Image = opened
            if mode is None and image.mode not in _INDEX_MODES:
                raise DataError(
                    f"{path}: expected a one-channel 8-bit label image, found mode {image.mode}; if its colours are "
                    "classes, list them in label_map as '#rrggbb': class"
                )
            if mode is not None:
                if image.mode in _DEEP_MODES:
                    raise DataError(f"{path}: expected an 8-bit image, found mode {image.mode}; convert it to 8 bits")
                image = ImageOps.exif_transpose(image).convert(mode)
            return np.asarray(image).astype(np.uint8, copy=False)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: unreadable or truncated ({error}); restore or remove the file") from error


@dataclass(frozen=True)
class IdLabels:
    """Labels whose stored value is an id.

    Attributes:
        table: stored value -> train id, uint8 (256,).
        allowed: which stored values may occur, bool (256,); another one is an error, not silently ignored.
        space: name of the space that the stored values should be in, for messages.
    """

    table: NDArray[np.uint8]
    allowed: NDArray[np.bool_]
    space: str

    @classmethod
    def in_space(cls, table: NDArray[np.uint8], space: LabelSpace) -> "IdLabels":
        """Files that hold the train ids of ``space`` (and 255), mapped by ``table``."""
        allowed = np.zeros(256, bool)
        allowed[[*range(len(space)), IGNORE]] = True
        return cls(table, allowed, space.name)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: unreadable, or a value outside the space.
        """
        stored = read_index_image(path)
        counts = np.bincount(stored.ravel(), minlength=256)
        outside = np.flatnonzero((counts > 0) & ~self.allowed)
        if outside.size:
            shares = ", ".join(f"{value} ({counts[value] / stored.size:.2%} of the pixels)" for value in outside)
            raise DataError(
                f"{path}: label value outside {self.space}: {shares}; allowed are "
                f"{_ranges(np.flatnonzero(self.allowed))}. Set label_space or label_map if the files use other ids"
            )
        return self.table[stored]


@dataclass(frozen=True)
class PaintedLabels:
    """Labels whose colour is the class; colours that the map does not list are ignored.

    Attributes:
        colors: 24-bit RGB numbers, ascending, int32 (n,).
        train_ids: their classes, uint8 (n,).
    """

    colors: NDArray[np.int32]
    train_ids: NDArray[np.uint8]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: unreadable.
        """
        rgb = read_image(path).astype(np.int32)
        packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
        position = np.searchsorted(self.colors, packed).clip(max=len(self.colors) - 1)
        return np.where(self.colors[position] == packed, self.train_ids[position], np.uint8(IGNORE))


LabelDecoder = IdLabels | PaintedLabels


def label_map_decoder(mapping: Mapping[int | str, int | str], space: LabelSpace, where: str) -> LabelDecoder:
    """Decoder for a recipe's ``label_map``: own ids or '#rrggbb' to class names, train ids or 'ignore'.

    Raises:
        RecipeError: a key or value makes no sense; all are listed.
    """
    problems: list[str] = []
    keys: list[int] = []
    values: list[int] = []
    painted = any(isinstance(key, str) and _HEX.match(key) for key in mapping)
    for key, value in mapping.items():
        number = _stored_value(key, painted)
        train_id = _train_id(value, space)
        if number is None:
            expected = "'#rrggbb'" if painted else "an id from 0 to 255 (or, for every key, '#rrggbb')"
            problems.append(f"key {key!r}: expected {expected}")
        if train_id is None:
            problems.append(f"value {value!r} of {key!r}: expected a class of {space.name}, a train id or 'ignore'")
        keys.append(number or 0)
        values.append(train_id or 0)
    if problems:
        raise RecipeError(f"{where}.label_map: " + "; ".join(problems))
    if painted:
        order = np.argsort(keys)
        return PaintedLabels(np.asarray(keys, np.int32)[order], np.asarray(values, np.uint8)[order])
    table = np.full(256, IGNORE, np.uint8)
    table[keys] = values
    return IdLabels(table, np.ones(256, bool), space.name)


def _stored_value(key: int | str, painted: bool) -> int | None:
    if painted:
        return int(key[1:], 16) if isinstance(key, str) and _HEX.match(key) else None
    if isinstance(key, str) and key.isdigit():
        key = int(key)
    return key if isinstance(key, int) and 0 <= key <= 255 else None


def _train_id(value: int | str, space: LabelSpace) -> int | None:
    if value == "ignore" or value == IGNORE:
        return IGNORE
    if isinstance(value, str):
        return space.classes.index(value) if value in space.classes else None
    return value if 0 <= value < len(space) else None


def _ranges(values: NDArray[np.intp]) -> str:
    breaks = np.flatnonzero(np.diff(values) > 1) + 1
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in np.split(values, breaks))
