"""Windows over an image: which part of the image each one sees, and which part of the result each one gives."""

import math
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["CONTEXT", "ONE_PIECE", "Box", "Windows", "fits_in_one_piece", "large_image_windows", "sliding_windows"]

ONE_PIECE = 4 * 2**20
"""Pixels of the largest image that goes through the network at once."""
CONTEXT = 192
"""Pixels around the part of a large image that a window gives; seen by the network, not written."""
_LONGEST = 8192
"""Longest side of an image that goes through the network at once; a longer one needs large interpolation matrices."""
_CORE = 1152
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
class Windows:
    """A division of an image's result into parts, with the windows that each part is made of.

    Attributes:
        parts: boxes that cover the image once.
        views: boxes that the network sees; overlapping.
        context: the result of a part is that of the one view at the same position; False: the mean of all views that
            meet the part.
        width: of the image.
    """

    parts: tuple[Box, ...]
    views: tuple[Box, ...]
    context: bool
    width: int

    def views_of(self, number: int, needed: Box, *, mirror: bool) -> list[Box]:
        """The views for the box ``needed`` of part ``number``; ``mirror``: windows that begin at the right border."""
        if self.context:
            return [self.views[number]]
        views = [view.mirrored(self.width) for view in self.views] if mirror else self.views
        return [view for view in views if view.meets(needed)]

    def __str__(self) -> str:
        tall, wide = (max(view.size[axis] for view in self.views) for axis in (0, 1))
        context = f", {CONTEXT} pixels of each side for context" if self.context else ""
        return f"{len(self.views)} windows of at most {wide}x{tall} pixels{context}"


def fits_in_one_piece(height: int, width: int) -> bool:
    """Whether an image of that size may go through the network at once."""
    return height * width <= ONE_PIECE and max(height, width) <= _LONGEST


def large_image_windows(height: int, width: int) -> Windows:
    """Parts of about 1152x1152 pixels, each seen with ``CONTEXT`` pixels around it."""
    parts = _boxes(_borders(height, _CORE), _borders(width, _CORE))
    views = tuple(
        Box(
            max(part.top - CONTEXT, 0),
            min(part.bottom + CONTEXT, height),
            max(part.left - CONTEXT, 0),
            min(part.right + CONTEXT, width),
        )
        for part in parts
    )
    return Windows(parts, views, context=True, width=width)


def sliding_windows(height: int, width: int, window: tuple[int, int]) -> Windows:
    """Views of the size of ``window`` (height, width) at steps of two thirds of it; one part if the image is small."""
    tall, wide = min(window[0], height), min(window[1], width)
    views = tuple(Box(y, y + tall, x, x + wide) for y in _starts(height, tall) for x in _starts(width, wide))
    if fits_in_one_piece(height, width):
        return Windows((Box(0, height, 0, width),), views, context=False, width=width)
    # The views of one part are in memory at once. A view at a border between parts is computed for each of the parts.
    side = max(math.isqrt(ONE_PIECE), 2 * tall, 2 * wide)
    return Windows(_boxes(_borders(height, side), _borders(width, side)), views, context=False, width=width)


def _boxes(rows: list[int], columns: list[int]) -> tuple[Box, ...]:
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
