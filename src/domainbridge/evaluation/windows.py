"""Windows over an image: which part of the image each one sees, and which part of the result each one gives."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONTEXT", "LEAST", "ONE_PIECE", "Box", "Fade", "Windows", "fits_in_one_piece", "large_image_windows",
    "sliding_windows",
]  # fmt: skip

ONE_PIECE = 4 * 2**20
"""Pixels of the largest image that goes through the network at once."""
CONTEXT = 352
"""Least number of pixels around the part of a large image that a window gives: seen by the network, but not written.

The class of a pixel depends on pixels as far away as the network's convolutions reach, about 500 pixels for
EfficientNet-Lite0 with its head; the farthest hardly count (docs/predicting.md has the figures).
"""
_REACH = 32
"""Pixels on each side of a border between windows over which one fades into the next."""
LEAST = 1e-6
"""Weight of a window where another one counts fully."""
_LONGEST = 8192
"""Longest side of an image that goes through the network at once; a longer one needs large interpolation matrices."""
_SIDE = 1536
"""Of a window of a large image. All are as large, so that memory of one is used again for the next."""
_GRID = 32
"""Windows of a large image start at multiples of it: the network's cells lie as they do in the whole image."""


@dataclass(frozen=True)
class Box:
    """A part of an image: from ``top`` to before ``bottom``, from ``left`` to before ``right``, in pixels."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def mirrored(self, width: int) -> "Box":
        """The same part of the image after its columns are reversed."""
        return Box(self.top, self.bottom, width - self.right, width - self.left)

    def meets(self, other: "Box") -> bool:
        """Whether the two have a pixel in common."""
        rows = self.top < other.bottom and other.top < self.bottom
        return rows and self.left < other.right and other.left < self.right

    def common(self, other: "Box") -> "Box":
        """The pixels of both."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        return Box(top, bottom, max(self.left, other.left), min(self.right, other.right))


@dataclass(frozen=True)
class Fade:
    """Where along an axis of the image one window goes over into the next.

    Attributes:
        borders: between the windows, from 0 to the length of the axis.
        reach: pixels on each side of an inner border over which both windows count.
    """

    borders: tuple[int, ...]
    reach: int

    def weights(self, number: int, pixels: slice) -> NDArray[np.float32]:
        """The weight of a window at pixels of the image, float32 (pixels,): 1 inside, a ramp at each inner border.

        The weights of all windows sum to 1 at every pixel, but for the least weight, which lets a window speak alone
        where a reduced result reads a pixel beyond its part.
        """
        centers = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
        weights = np.ones_like(centers)
        if number:
            weights = np.minimum(weights, (centers - self.borders[number] + self.reach) / (2 * self.reach))
        if number + 2 < len(self.borders):
            weights = np.minimum(weights, (self.borders[number + 1] + self.reach - centers) / (2 * self.reach))
        return np.clip(weights, LEAST, 1)

    def first_at(self, pixel: int) -> int:
        """The first window that counts at a pixel."""
        return bisect_right(self.borders[1:-1], pixel - self.reach)

    def last_at(self, pixel: int) -> int:
        """The last window that counts at a pixel."""
        return bisect_right(self.borders[1:-1], pixel + self.reach)


@dataclass(frozen=True)
class Windows:
    """A division of an image's result into parts, with the windows that each part is made of.

    Attributes:
        parts: boxes that cover the image once, row by row of boxes.
        views: boxes that the network sees; overlapping.
        width: of the image.
        fades: for windows with context, along the rows and along the columns: the parts are as many as the views, and
            each is made of the views up to its own position that count there. None: a part is the mean of all views
            that meet the part.
    """

    parts: tuple[Box, ...]
    views: tuple[Box, ...]
    width: int
    fades: tuple[Fade, Fade] | None = None

    @property
    def context(self) -> bool:
        """Whether the windows see more than what they give."""
        return self.fades is not None

    @property
    def cores(self) -> tuple[Box, ...]:
        """For windows with context: boxes that cover the image once, in the order of the views and inside them."""
        assert self.fades is not None
        rows, columns = self.fades
        return _boxes(rows.borders, columns.borders)

    def mean_views(self, needed: Box, *, mirror: bool) -> list[Box]:
        """The views for a box of a part without fades; ``mirror``: windows that begin at the right border."""
        views = [view.mirrored(self.width) for view in self.views] if mirror else self.views
        return [view for view in views if view.meets(needed)]

    def faded_views(self, number: int | None, needed: Box) -> list[int]:
        """The positions of the views for the box ``needed``, in windows with context.

        ``number``: of the part that the box is needed for; None: the box belongs to none of these parts.
        """
        assert self.fades is not None
        rows, columns = self.fades
        across = len(columns.borders) - 1
        row, column = rows.last_at(needed.bottom - 1), columns.last_at(needed.right - 1)
        if number is not None:
            row, column = divmod(number, across)
        return [
            y * across + x
            for y in range(min(rows.first_at(needed.top), row), row + 1)
            for x in range(min(columns.first_at(needed.left), column), column + 1)
        ]

    def weights(self, number: int, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The weight of a view at the rows and at the columns of a box, in windows with context."""
        assert self.fades is not None
        rows, columns = self.fades
        row, column = divmod(number, len(columns.borders) - 1)
        return rows.weights(row, slice(box.top, box.bottom)), columns.weights(column, slice(box.left, box.right))

    def __str__(self) -> str:
        tall, wide = (max(view.size[axis] for view in self.views) for axis in (0, 1))
        context = f" that overlap by {2 * CONTEXT} or more" if self.context else ""
        return f"{len(self.views)} windows of at most {wide}x{tall} pixels{context}"


def fits_in_one_piece(height: int, width: int) -> bool:
    """Whether an image of that size may go through the network at once."""
    return height * width <= ONE_PIECE and max(height, width) <= _LONGEST


def large_image_windows(height: int, width: int) -> Windows:
    """Windows of about 1536x1536 pixels at even steps that overlap by twice ``CONTEXT`` or more and fade over."""
    down, across = _spans(height), _spans(width)
    views = tuple(Box(top, bottom, left, right) for top, bottom in down for left, right in across)
    rows, columns = _middles(down), _middles(across)
    reach = max(min(_REACH, CONTEXT // 2), 1)
    parts = _boxes(_before(rows, reach), _before(columns, reach))
    return Windows(parts, views, width, (Fade(rows, reach), Fade(columns, reach)))


def _spans(length: int) -> list[tuple[int, int]]:
    """Start and end of each window along an axis; all of one length, but for less than a cell more of the last one."""
    last = max(length - _SIDE, 0) // _GRID * _GRID
    steps = math.ceil(last / (_SIDE - 2 * CONTEXT))
    starts = [number * last // steps // _GRID * _GRID for number in range(steps)] + [last]
    return [*((start, start + _SIDE) for start in starts[:-1]), (last, length)]


def _middles(spans: list[tuple[int, int]]) -> tuple[int, ...]:
    """Borders in the middle of what two windows share."""
    return (0, *((after[0] + before[1]) // 2 for before, after in pairwise(spans)), spans[-1][1])


def _before(borders: Sequence[int], reach: int) -> list[int]:
    """Borders at which the next window begins to count, so that a part needs no window after its own."""
    return [borders[0], *(border - reach for border in borders[1:-1]), borders[-1]]


def sliding_windows(height: int, width: int, window: tuple[int, int]) -> Windows:
    """Views of the size of ``window`` (height, width) at steps of two thirds of it; one part if the image is small."""
    tall, wide = min(window[0], height), min(window[1], width)
    views = tuple(Box(y, y + tall, x, x + wide) for y in _starts(height, tall) for x in _starts(width, wide))
    if fits_in_one_piece(height, width):
        return Windows((Box(0, height, 0, width),), views, width)
    # The views of one part are in memory at once. A view at a border between parts is computed for each of the parts.
    side = max(math.isqrt(ONE_PIECE), 2 * tall, 2 * wide)
    return Windows(_boxes(_borders(height, side), _borders(width, side)), views, width)


def _boxes(rows: Sequence[int], columns: Sequence[int]) -> tuple[Box, ...]:
    return tuple(Box(top, bottom, left, right) for top, bottom in pairwise(rows) for left, right in pairwise(columns))


def _borders(length: int, part: int) -> list[int]:
    """Borders of parts of about equal length, at most about ``part``, inner ones at multiples of the grid."""
    count = math.ceil(length / part)
    inner = [round(number * length / count / _GRID) * _GRID for number in range(1, count)]
    return [0, *inner, length]


def _starts(length: int, window: int) -> list[int]:
    """Window starts at steps of two thirds of the window; the last one ends at the border."""
    stride = max(2 * window // 3, 1)
    return [*range(0, length - window, stride), length - window]
