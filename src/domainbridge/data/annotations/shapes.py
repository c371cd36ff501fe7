"""Areas of annotations, each filled as the tool that draws it would.

All coordinates are in pixels, x to the right and y down, from the upper left corner.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domainbridge.data.annotations.runs import decompressed_counts, mask_of_counts
from domainbridge.errors import DataError

__all__ = [
    "Canvas", "CocoPolygons", "CvPolygon", "Ellipse", "Mask", "PilCircle", "PilLine", "PilPolygon", "PilRectangle",
    "Points", "Shape", "polygon_points",
]  # fmt: skip

Points = NDArray[np.float64]
"""float64 (n, 2): x and y."""

_FARTHEST = 1e5
"""Coordinates farther out are damage: rasterizers take time and memory in proportion to them."""
_MOST_PIXELS = 2**28


class Canvas:
    """A label while it is drawn; uint8, as an array or as an image of Pillow, whichever the last shape needed."""

    def __init__(self, height: int, width: int, value: int) -> None:
        if not (height > 0 and width > 0 and height * width <= _MOST_PIXELS):
            raise ValueError(f"size {width}x{height}: expected 1 to {_MOST_PIXELS} pixels")
        self.height, self.width = height, width
        self._array: NDArray[np.uint8] = np.full((height, width), value, np.uint8)
        self._image: Image.Image | None = None

    @property
    def array(self) -> NDArray[np.uint8]:
        """The label, uint8 (height, width), writable."""
        if self._image is not None:
            self._array, self._image = np.array(self._image), None
        return self._array

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        """A pen of Pillow on the label."""
        if self._image is None:
            self._image = Image.fromarray(self._array)
        return ImageDraw.Draw(self._image)


class Shape(Protocol):
    """An area."""

    def draw(self, canvas: Canvas, value: int) -> None:
        """Give the pixels of the area that value."""
        ...


def polygon_points(values: Any, least: int = 3) -> Points:
    """Points from x and y in pairs or in one list.

    Raises:
        ValueError: fewer than ``least`` points, an odd number of values, or a value that is no sensible number.
    """
    points = np.asarray(values, np.float64)
    if (
        points.ndim not in (1, 2)
        or (points.ndim == 1 and points.size % 2)
        or (points.ndim == 2 and points.shape[1] != 2)
    ):
        raise ValueError(f"points: expected pairs of x and y, found an array of shape {points.shape}")
    points = points.reshape(-1, 2)
    if len(points) < least:
        raise ValueError(f"points: expected at least {least}, found {len(points)}")
    if not (np.abs(points) <= _FARTHEST).all():  # also NaN
        raise ValueError("points: a coordinate is not a number or beyond 100,000 pixels")
    return points


@dataclass(frozen=True, eq=False)
class PilPolygon:
    """A polygon with its outline, as LabelMe fills it: ``ImageDraw.polygon``."""

    points: Points

    def draw(self, canvas: Canvas, value: int) -> None:
        canvas.pen.polygon([(x, y) for x, y in self.points.tolist()], fill=value, outline=value)


@dataclass(frozen=True, eq=False)
class PilRectangle:
    """A rectangle between two corners, both included, as LabelMe fills it: ``ImageDraw.rectangle``."""

    points: Points

    def draw(self, canvas: Canvas, value: int) -> None:
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        canvas.pen.rectangle([*low.tolist(), *high.tolist()], fill=value, outline=value)


@dataclass(frozen=True, eq=False)
class PilCircle:
    """A disc, as LabelMe fills it: ``ImageDraw.ellipse``."""

    center: tuple[float, float]
    radius: float

    def draw(self, canvas: Canvas, value: int) -> None:
        (x, y), r = self.center, self.radius
        canvas.pen.ellipse([x - r, y - r, x + r, y + r], fill=value, outline=value)


@dataclass(frozen=True, eq=False)
class PilLine:
    """A line with a width in pixels, as LabelMe draws it: ``ImageDraw.line``."""

    points: Points
    width: int

    def draw(self, canvas: Canvas, value: int) -> None:
        canvas.pen.line([(x, y) for x, y in self.points.tolist()], fill=value, width=self.width)


@dataclass(frozen=True, eq=False)
class CvPolygon:
    """A polygon with holes, filled by ``cv2.fillPoly``; integer corners."""

    outer: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...] = ()

    def draw(self, canvas: Canvas, value: int) -> None:
        if not self.holes:
            cv2.fillPoly(canvas.array, [self.outer], value)
            return
        mask = np.zeros((canvas.height, canvas.width), np.uint8)
        cv2.fillPoly(mask, [self.outer], 1)
        cv2.fillPoly(mask, list(self.holes), 0)
        canvas.array[mask.astype(bool)] = value


@dataclass(frozen=True, eq=False)
class CocoPolygons:
    """The union of polygons, filled by pycocotools: ``frPyObjects`` and ``merge``."""

    polygons: tuple[Points, ...]

    def draw(self, canvas: Canvas, value: int) -> None:
        try:
            from pycocotools import mask as tool
        except ImportError:
            raise DataError(
                "polygons of this format are filled by the package pycocotools, which is not installed; "
                "pip install 'domainbridge[annotations]'"
            ) from None
        encoded = tool.frPyObjects([p.reshape(-1).tolist() for p in self.polygons], canvas.height, canvas.width)
        runs = decompressed_counts(tool.merge(encoded)["counts"].decode())  # its own decoding warns about NumPy 2
        canvas.array[mask_of_counts(runs, canvas.width, canvas.height).T] = value


@dataclass(frozen=True, eq=False)
class Ellipse:
    """An ellipse, filled by ``cv2.ellipse``; ``degrees`` is its rotation, clockwise."""

    center: tuple[float, float]
    radii: tuple[float, float]
    degrees: float = 0.0

    def draw(self, canvas: Canvas, value: int) -> None:
        center = round(self.center[0]), round(self.center[1])
        radii = round(abs(self.radii[0])), round(abs(self.radii[1]))
        cv2.ellipse(canvas.array, center, radii, math.fmod(self.degrees, 360), 0, 360, value, -1)


@dataclass(frozen=True, eq=False)
class Mask:
    """The true pixels of a mask, bool (h, w), with its upper left corner at (left, top); cut off at the border."""

    mask: NDArray[np.bool_]
    left: int = 0
    top: int = 0

    def draw(self, canvas: Canvas, value: int) -> None:
        top, left = max(self.top, 0), max(self.left, 0)
        part = self.mask[top - self.top :, left - self.left :]
        below = canvas.array[top:, left:]
        height, width = min(part.shape[0], below.shape[0]), min(part.shape[1], below.shape[1])
        below[:height, :width][part[:height, :width]] = value
