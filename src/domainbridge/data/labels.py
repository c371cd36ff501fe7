"""Decoders from label files to train ids: by value, by color or by polygon."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domainbridge.data.decode import read_first_channel, read_image, read_index_image
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.storage.tar import read_bytes
from domainbridge.errors import DataError, RecipeError
from domainbridge.types import IGNORE

__all__ = ["ColorLabels", "IdLabels", "LabelDecoder", "PolygonLabels", "color_labels", "label_map_decoder"]

_VALUES = 2**16
_HEX = re.compile(r"^#[0-9a-fA-F]{6}$")


@dataclass(frozen=True)
class IdLabels:
    """Labels with an id as the value of each pixel.

    Attributes:
        table: value -> train id, uint8 (65536,).
        allowed: whether a value may occur, bool (65536,); any other value is an error. None allows every value.
        space: name of the label space of the values, for messages.
        first_channel: the files have several 16-bit channels, and the first channel is the id.
    """

    table: NDArray[np.uint8]
    allowed: NDArray[np.bool_] | None
    space: str
    first_channel: bool = False

    @classmethod
    def in_space(cls, table: NDArray[np.uint8], space: LabelSpace) -> "IdLabels":
        """Decoder of files with train ids of ``space`` (and 255), mapped by ``table``, uint8 (256,)."""
        allowed = np.zeros(_VALUES, bool)
        allowed[[*range(len(space)), IGNORE]] = True
        return cls(_wide(table), allowed, space.name)

    @classmethod
    def native_ids(cls, table: NDArray[np.uint8], name: str, *, first_channel: bool = False) -> "IdLabels":
        """Decoder of files with a data set's ids (any value), mapped by ``table``, uint8 (256,) or (65536,)."""
        return cls(_wide(table), None, name, first_channel)

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return _digest(self.table.tobytes(), str(self.first_channel).encode())

    def compose(self, table: NDArray[np.uint8]) -> "IdLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        return replace(self, table=table[self.table])

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: the file is unreadable, or has a value outside the label space.
        """
        values = read_first_channel(path) if self.first_channel else read_index_image(path)
        if self.allowed is not None and not _look_up(self.allowed, values).all():
            distinct, counts = np.unique(values, return_counts=True)
            shares = ", ".join(
                f"{value} ({count / values.size:.2%} of the pixels)"
                for value, count in zip(distinct.tolist(), counts.tolist(), strict=True)
                if not self.allowed[value]
            )
            raise DataError(
                f"{path}: label value outside {self.space}: {shares}; allowed are "
                f"{_ranges(np.flatnonzero(self.allowed))}. Set label_space or label_map if the files use other ids"
            )
        return _look_up(self.table, values)


@dataclass(frozen=True)
class ColorLabels:
    """Labels with the class as a color; unlisted colors are ignored.

    Attributes:
        colors: RGB as 24-bit numbers, ascending, int32 (n,).
        train_ids: train id of each color, uint8 (n,).
    """

    colors: NDArray[np.int32]
    train_ids: NDArray[np.uint8]

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return _digest(self.colors.tobytes(), self.train_ids.tobytes())

    def compose(self, table: NDArray[np.uint8]) -> "ColorLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        return replace(self, train_ids=table[self.train_ids])

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: the file is unreadable.
        """
        rgb = read_image(path).astype(np.int32)
        packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
        position = np.searchsorted(self.colors, packed).clip(max=len(self.colors) - 1)
        return np.where(self.colors[position] == packed, self.train_ids[position], np.uint8(IGNORE))


@dataclass(frozen=True)
class PolygonLabels:
    """Named polygons in a JSON file, later polygons on top (the annotation format of Cityscapes).

    Attributes:
        train_ids: name -> train id; a polygon with an unlisted name covers the polygons below with 255.
    """

    train_ids: Mapping[str, int]

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return _digest(json.dumps(sorted(self.train_ids.items())).encode())

    def compose(self, table: NDArray[np.uint8]) -> "PolygonLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        return PolygonLabels({name: int(table[train_id]) for name, train_id in self.train_ids.items()})

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width); pixels without a polygon are 255.

        Raises:
            DataError: the file is unreadable, or has another format.
        """
        try:
            content = json.loads(read_bytes(path).decode("utf-8"))
            canvas = Image.new("L", (int(content["imgWidth"]), int(content["imgHeight"])), IGNORE)
            pen = ImageDraw.Draw(canvas)
            for drawn in content["objects"]:
                corners = [(float(x), float(y)) for x, y in drawn["polygon"]]
                if len(corners) > 2 and not drawn.get("deleted"):
                    pen.polygon(corners, fill=self.train_ids.get(drawn["label"], IGNORE))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected JSON with imgWidth, imgHeight and objects of label and polygon "
                f"({type(error).__name__}: {error}); restore or remove the file"
            ) from error
        return np.array(canvas)


LabelDecoder = IdLabels | ColorLabels | PolygonLabels


def label_map_decoder(mapping: Mapping[int | str, int | str], space: LabelSpace, where: str) -> LabelDecoder:
    """Decoder for a recipe's ``label_map``: values or '#rrggbb' to class names, train ids or 'ignore'.

    Raises:
        RecipeError: keys or values have no meaning; the message lists all of them.
    """
    problems: list[str] = []
    train_ids: dict[int, int] = {}
    by_color = any(isinstance(key, str) and _HEX.match(key) for key in mapping)
    for key, value in mapping.items():
        number = _key_number(key, by_color)
        train_id = _train_id(value, space)
        if number is None:
            expected = "'#rrggbb'" if by_color else "an id from 0 to 65535 (or, for every key, '#rrggbb')"
            problems.append(f"key {key!r}: expected {expected}")
        if train_id is None:
            problems.append(f"value {value!r} of {key!r}: expected a class of {space.name}, a train id or 'ignore'")
        train_ids[number or 0] = train_id or 0
    if problems:
        raise RecipeError(f"{where}.label_map: " + "; ".join(problems))
    if by_color:
        return color_labels(train_ids)
    table = np.full(_VALUES, IGNORE, np.uint8)
    table[list(train_ids)] = list(train_ids.values())
    return IdLabels.native_ids(table, space.name)


def color_labels(train_ids: Mapping[int, int]) -> ColorLabels:
    """Decoder for a map from RGB as 24-bit numbers to train ids."""
    colors = sorted(train_ids)
    return ColorLabels(np.asarray(colors, np.int32), np.asarray([train_ids[c] for c in colors], np.uint8))


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"|".join(parts), digest_size=12).hexdigest()


def _look_up(table: NDArray[Any], values: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """``table[values]`` as uint8; for 8-bit values, OpenCV is five times as fast as NumPy."""
    if values.dtype == np.uint8:
        return cv2.LUT(values, table[:256].astype(np.uint8)).astype(np.uint8, copy=False)
    return table[values].astype(np.uint8, copy=False)


def _wide(table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A table for every 16-bit value; values beyond the end of ``table`` are ignored."""
    return np.pad(table, (0, _VALUES - len(table)), constant_values=IGNORE)


def _key_number(key: int | str, by_color: bool) -> int | None:
    if by_color:
        return int(key[1:], 16) if isinstance(key, str) and _HEX.match(key) else None
    if isinstance(key, str) and key.isdigit():
        key = int(key)
    return key if isinstance(key, int) and 0 <= key < _VALUES else None


def _train_id(value: int | str, space: LabelSpace) -> int | None:
    if value == "ignore" or value == IGNORE:
        return IGNORE
    if isinstance(value, str):
        return space.classes.index(value) if value in space.classes else None
    return value if 0 <= value < len(space) else None


def _ranges(values: NDArray[np.intp]) -> str:
    breaks = np.flatnonzero(np.diff(values) > 1) + 1
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in np.split(values, breaks))
