"""Decoders from label files to train ids: by value, by color or by polygon."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.index_image import read_first_channel, read_index_image
from domainbridge.data.label_map_keys import VALUES
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.storage.tar import read_bytes
from domainbridge.errors import DataError, FileError
from domainbridge.files import digest_bytes
from domainbridge.types import IGNORE

__all__ = [
    "IdLabels",
    "LabelDecoder",
    "PolygonLabels",
    "shares",
]


@dataclass(frozen=True)
class IdLabels:
    """Labels with an id as the value of each pixel.

    Attributes:
        table: value -> train id, uint8 (65536,).
        allowed: whether a value may occur, bool (65536,); any other value is an error. None allows every value.
        space: name of the label space of the values, for messages.
        first_channel: the files have several 16-bit channels, and the first channel is the id.
        listed: whether a value has a meaning, bool (65536,), for reports on the others. None: as ``allowed``.
        spread: depths below 8 bits whose values are spread to 0 to 255; None: those for which the values that have a
            meaning say so.
    """

    table: NDArray[np.uint8]
    allowed: NDArray[np.bool_] | None
    space: str
    first_channel: bool = False
    listed: NDArray[np.bool_] | None = None
    spread: tuple[int, ...] | None = None

    @classmethod
    def in_space(cls, table: NDArray[np.uint8], space: LabelSpace) -> "IdLabels":
        """Decoder of files with train ids of ``space`` (and 255), mapped by ``table``, uint8 (256,)."""
        allowed = np.zeros(VALUES, bool)
        allowed[[*range(len(space)), IGNORE]] = True
        return cls(_wide(table), allowed, space.name)

    @classmethod
    def native_ids(cls, table: NDArray[np.uint8], name: str, *, first_channel: bool = False) -> "IdLabels":
        """Decoder of files with a data set's ids (any value), mapped by ``table``, uint8 (256,) or (65536,)."""
        return cls(_wide(table), None, name, first_channel)

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return digest_bytes(self.table.tobytes(), str(self.first_channel).encode())

    def compose(self, table: NDArray[np.uint8]) -> "IdLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        return replace(self, table=table[self.table])

    def with_nearest(self) -> "IdLabels":
        """Decoder that takes every value for the nearest listed one, the smaller of two."""
        listed = np.flatnonzero(self._meant())
        values = np.arange(VALUES)
        above = listed[np.searchsorted(listed, values).clip(max=len(listed) - 1)]
        below = listed[(np.searchsorted(listed, values, side="right") - 1).clip(min=0)]
        nearest = np.where(np.abs(values - below) <= np.abs(above - values), below, above)
        depths = self._spread_depths()
        return replace(self, table=self.table[nearest], allowed=None, listed=np.ones(VALUES, bool), spread=depths)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Raises:
            DataError: the file is unreadable, or has a value outside the label space.
        """
        return self.train_ids(path, self.values(path))

    def values(self, path: Path) -> NDArray[Any]:
        """The stored values, uint8 or uint16 (height, width).

        Raises:
            DataError: the file is unreadable.
        """
        if self.first_channel:
            return read_first_channel(path)
        void = next((value for value in (IGNORE, VALUES - 1) if self.table[value] == IGNORE), None)
        return read_index_image(path, self._spread_depths() if self.spread is None else self.spread, void)

    def train_ids(self, path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
        """The train id of each value of ``path``.

        Raises:
            DataError: a value is outside the label space.
        """
        if self.allowed is not None and not _look_up(self.allowed, values).all():
            everything = self.value_counts(values).items()
            outside = {value: count for value, count in everything if not self.allowed[value]}
            raise FileError(
                path,
                f"label value outside {self.space}: {shares(outside, values.size)}; allowed are "
                f"{_ranges(np.flatnonzero(self.allowed))}. Set label_space or label_map if the files use other ids"
                f"{_lossy(path)}",
                f"label values outside {self.space}",
                {str(value): count for value, count in outside.items()},
            )
        return _look_up(self.table, values)

    def value_counts(self, values: NDArray[Any]) -> dict[int, int]:
        """Value -> number of pixels, of all values that occur."""
        counts = np.bincount(values.ravel())
        present = np.flatnonzero(counts)
        return dict(zip(present.tolist(), counts[present].tolist(), strict=True))

    def means(self, value: int) -> bool:
        """Whether a value is listed in the label map, or belongs to the label space."""
        return bool(self._meant()[value])

    def listed_train_ids(self) -> NDArray[np.uint8]:
        """Train ids of the values that are listed or belong to the label space, without repetition."""
        return np.unique(self.table[self._meant()])

    def describe(self, value: int) -> str:
        """A value as recipes write it."""
        return str(value)

    def nearest_listed(self, value: int) -> str:
        """The listed value nearest to another one, as recipes write it."""
        listed = np.flatnonzero(self._meant())
        return str(listed[np.abs(listed - value).argmin()])

    def _spread_depths(self) -> tuple[int, ...]:
        """Depths of 1, 2 and 4 bits per value whose files are meant as viewers show them: white is 255.

        A mask of one bit has 0 and 1; a map for 0 and 255 is for the same mask in 8 bits. A file of two bits has 0 to
        3, unless a map lists 0, 85, 170 and 255 alone.
        """
        meant = self._meant()
        depths = [1] if meant[IGNORE] and not meant[1] else []
        if self.listed is not None:
            values = np.flatnonzero(self.listed)
            for bits in (2, 4):
                largest = 2**bits - 1
                shown = values.size and largest < values[-1] <= IGNORE and not (values % (IGNORE // largest)).any()
                depths += [bits] if shown else []
        return tuple(depths)

    def _meant(self) -> NDArray[np.bool_]:
        if self.listed is not None:
            return self.listed
        return self.allowed if self.allowed is not None else np.ones(VALUES, bool)


@dataclass(frozen=True)
class PolygonLabels:
    """Named polygons in a JSON file, later polygons on top (the annotation format of Cityscapes).

    Attributes:
        train_ids: name -> train id; a polygon with an unlisted name covers the polygons below with 255.
    """

    train_ids: Mapping[str, int]

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        return digest_bytes(json.dumps(sorted(self.train_ids.items())).encode())

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


LabelDecoder = IdLabels | ColorLabels | PolygonLabels | AnnotationLabels


def shares(value_counts: Mapping[int, int], pixels: int, limit: int = 6) -> str:
    """The commonest values with their shares of the pixels."""
    ordered = sorted(value_counts.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{value} ({count / pixels:.2%} of the pixels)" for value, count in ordered[:limit])
    return listed + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")


def _lossy(path: Path) -> str:
    """What to add about a file whose format changes values."""
    if path.suffix.lower() not in (".jpg", ".jpeg", ".jpe", ".jfif"):
        return ""
    return "; JPEG changes values: save labels as PNG, or set label_nearest: true"


def _look_up(table: NDArray[Any], values: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """``table[values]`` as uint8; for 8-bit values, OpenCV is five times as fast as NumPy."""
    if values.dtype == np.uint8:
        return cv2.LUT(values, table[:256].astype(np.uint8)).astype(np.uint8, copy=False)
    return table[values].astype(np.uint8, copy=False)


def _wide(table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A table for every 16-bit value; values beyond the end of ``table`` are ignored."""
    return np.pad(table, (0, VALUES - len(table)), constant_values=IGNORE)


def _ranges(values: NDArray[np.intp]) -> str:
    breaks = np.flatnonzero(np.diff(values) > 1) + 1
    return ", ".join(f"{part[0]}" if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in np.split(values, breaks))
