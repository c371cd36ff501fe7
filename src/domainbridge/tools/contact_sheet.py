"""A picture of suggested images: each with the model's classes and the pixels on which the models disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from domainbridge.data.transforms import resize_image
from domainbridge.printable import printable
from domainbridge.tools.pictures import blend

__all__ = ["SheetRow", "draw_sheet"]

_WIDTH = 360
"""Pixels of each of the three pictures of a row."""
_TITLE = 18
_DIM = 0.45

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class SheetRow:
    """One image of the sheet.

    Attributes:
        title: a line above the pictures.
        image: RGB, uint8 (height, width, 3).
        colors: the classes' colors at the image's size, likewise.
        disagreement: float32 in [0, 1], (h, w) of any size; it covers the whole image.
    """

    title: str
    image: Picture
    colors: Picture
    disagreement: NDArray[np.float32]

    def picture(self) -> Picture:
        """Image, image with colors, and the dimmed image with disagreement in red; uint8 (rows, 3 * 360, 3)."""
        height, width = self.image.shape[:2]
        size = max(round(height * _WIDTH / width), 1), _WIDTH
        small, colors = resize_image(self.image, size), resize_image(self.colors, size)
        strength = resize_image((255 * self.disagreement).astype(np.uint8), size)[..., None] / np.float32(255)
        dimmed = _DIM * small.mean(2, keepdims=True)
        red = dimmed + strength * (np.array([255, 40, 40], np.float32) - dimmed)
        row = np.concatenate([small, blend(small, colors), red.clip(0, 255).astype(np.uint8)], 1)
        return np.concatenate([_title(self.title), row], 0)


def draw_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """All rows below each other."""
    return Image.fromarray(np.concatenate([row.picture() for row in rows], 0))


def _title(text: str) -> Picture:
    strip = Image.new("RGB", (3 * _WIDTH, _TITLE), "white")
    ImageDraw.Draw(strip).text((4, 3), printable(text).encode("latin-1", "backslashreplace").decode("latin-1"), "black")
    return np.asarray(strip)
