"""Geometry and color of decoded images (uint8 arrays), as pure functions of explicit draws.

The values agree with the published preprocessing (docs/method.md, section 7): OpenCV's bilinear and nearest resizing,
offsets and redraws of the crop, the photometric distortion of SSD. Recorded arrays are the
evidence (section 10, letter l).
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.types import IGNORE

__all__ = [
    "Distortion",
    "ResizeRule",
    "ScaleRule",
    "choose_crop",
    "distort",
    "draw_distortion",
    "draw_offset",
    "draw_window",
    "pad_to",
    "resize_image",
    "resize_label",
    "scaled_size",
]

Image = NDArray[np.uint8]
Offset = tuple[int, int]


@dataclass(frozen=True)
class ResizeRule:
    """Target size of a decoded image.

    Attributes:
        width, height: a box in pixels; with ``keep_ratio``, the long side of the box limits the long side of the image.
        keep_ratio: fit the image inside the box; False gives exactly the size of the box.
        min_side: with ``keep_ratio``: the short side of the image becomes max(min(width, height), min_side), whatever
            the long side.
    """

    width: int
    height: int
    keep_ratio: bool = True
    min_side: int | None = None

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a resized image, from its original size; rounded half up as in the published pipeline."""
        if not self.keep_ratio:
            return self.height, self.width
        long_side: float = max(self.width, self.height)
        short_side: float = min(self.width, self.height)
        if self.min_side is not None:
            short_side = max(short_side, self.min_side)
            long_side = short_side * max(height, width) / min(height, width)
        scale = min(long_side / max(height, width), short_side / min(height, width))
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


@dataclass(frozen=True)
class ScaleRule:
    """Both sides of an image times a factor."""

    factor: float

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a resized image, from its original size; rounded half up."""
        return max(int(height * self.factor + 0.5), 1), max(int(width * self.factor + 0.5), 1)


def resize_image(image: Image, size: tuple[int, int]) -> Image:
    """Bilinear, to (height, width); an image of this size is returned unchanged."""
    if image.shape[:2] == size:
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def resize_label(label: Image, size: tuple[int, int], *, published: bool = False) -> Image:
    """Nearest neighbor, to (height, width).

    The sampled pixel is the one under the center of the new pixel, as in the bilinear resizing of the image. OpenCV's
    faster INTER_NEAREST of the ``published`` pipeline samples at the corner, so that labels are half a pixel off and
    thin objects lose up to a third of their IoU with the image at a reduction by 4.
    """
    if label.shape == size:
        return label
    interpolation = cv2.INTER_NEAREST if published else cv2.INTER_NEAREST_EXACT
    return cv2.resize(label, (size[1], size[0]), interpolation=interpolation).astype(np.uint8, copy=False)


def draw_offset(image_size: tuple[int, int], crop: tuple[int, int], generator: np.random.Generator) -> Offset:
    """Top-left corner (y, x) of a crop, uniform over all crops inside the image; 0 along a too short side."""
    y = int(generator.integers(max(image_size[0] - crop[0], 0) + 1))
    x = int(generator.integers(max(image_size[1] - crop[1], 0) + 1))
    return y, x


def choose_crop(
    label: Image,
    crop: tuple[int, int],
    cat_max_ratio: float,
    max_tries: int,
    draw: Callable[[], Offset],
    wanted: tuple[int, float] | None = None,
) -> Offset:
    """Corner of a crop in which no class reaches ``cat_max_ratio`` of the labeled pixels.

    Args:
        label: train ids, (height, width).
        crop: (height, width).
        cat_max_ratio: 1 accepts the first draw.
        max_tries: number of redraws; the last draw is accepted in any case.
        draw: returns a corner (y, x) per call.
        wanted: a train id and its least share of the labeled pixels, if one class is wanted.
    """
    offset = draw()
    if cat_max_ratio >= 1 and wanted is None:
        return offset
    for _ in range(max_tries):
        y, x = offset
        counts = np.bincount(label[y : y + crop[0], x : x + crop[1]].ravel(), minlength=256)[:IGNORE]
        labeled = counts.sum()
        varied = np.count_nonzero(counts) > 1 and counts.max() / labeled < cat_max_ratio
        if varied and (wanted is None or counts[wanted[0]] >= wanted[1] * labeled):
            break
        offset = draw()
    return offset


def draw_window(crop: tuple[int, int], bounds: tuple[float, float], generator: np.random.Generator) -> tuple[int, int]:
    """(height, width) of the part of an image that becomes a crop after a random change of scale.

    Args:
        crop: (height, width).
        bounds: of the factor of the image's size, which is uniform in between. Equal bounds of 1 draw nothing.
        generator: of the draw.
    """
    if bounds == (1.0, 1.0):
        return crop
    factor = generator.uniform(*bounds)
    return max(round(crop[0] / factor), 1), max(round(crop[1] / factor), 1)


def scaled_size(part: tuple[int, int], window: tuple[int, int], crop: tuple[int, int]) -> tuple[int, int]:
    """Size of a part of an image after the change of scale that makes a crop of a whole window; all (height, width)."""
    height, width = (max(round(p * c / w), 1) for p, w, c in zip(part, window, crop, strict=True))
    return height, width


def pad_to(image: Image, size: tuple[int, int], value: int | tuple[int, int, int]) -> Image:
    """Pad at the bottom and at the right to at least (height, width); an image needs a value per channel."""
    below, right = max(size[0] - image.shape[0], 0), max(size[1] - image.shape[1], 0)
    if not below and not right:
        return image
    padded = np.empty((image.shape[0] + below, image.shape[1] + right, *image.shape[2:]), np.uint8)
    padded[...] = value
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


@dataclass(frozen=True)
class Distortion:
    """Draws of one photometric distortion; None skips a part.

    Attributes:
        brightness: added, in [-32, 32).
        contrast: multiplied, in [0.5, 1.5).
        contrast_first: contrast comes before saturation and hue; False: after both.
        saturation: multiplied, in [0.5, 1.5).
        hue: added to OpenCV's hue of range 0..179, in [-18, 18).
    """

    brightness: float | None
    contrast: float | None
    contrast_first: bool
    saturation: float | None
    hue: int | None


def draw_distortion(generator: np.random.Generator) -> Distortion:
    """Draws in which each part has the probability 1/2 (SSD, Liu et al., ECCV 2016; docs/method.md, section 4)."""
    on = generator.integers(2, size=5)
    return Distortion(
        brightness=float(generator.uniform(-32, 32)) if on[0] else None,
        contrast=float(generator.uniform(0.5, 1.5)) if on[1] else None,
        contrast_first=bool(on[2]),
        saturation=float(generator.uniform(0.5, 1.5)) if on[3] else None,
        hue=int(generator.integers(-18, 18)) if on[4] else None,
    )


def distort(image: Image, draws: Distortion) -> Image:
    """Distort an RGB image, uint8 (height, width, 3); each part clips and truncates its values."""
    if draws.brightness is not None:
        image = _scaled(image, 1.0, draws.brightness)
    if draws.contrast is not None and draws.contrast_first:
        image = _scaled(image, draws.contrast, 0.0)
    if draws.saturation is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _scaled(hsv[..., 1].astype(np.uint8, copy=False), draws.saturation, 0.0)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)
    if draws.hue is not None:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + draws.hue) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.uint8, copy=False)
    if draws.contrast is not None and not draws.contrast_first:
        image = _scaled(image, draws.contrast, 0.0)
    return image


def _scaled(values: Image, factor: float, offset: float) -> Image:
    """values * factor + offset in float32, clipped and truncated, through a table of the 256 gray levels."""
    levels = np.arange(256, dtype=np.float32)
    table = np.clip(levels * factor + offset, 0, 255).astype(np.uint8)
    return cv2.LUT(values, table).astype(np.uint8, copy=False)
