"""Pictures of a class map: the classes' colors, an overlay over the image, the legend below."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["blend", "blended", "legend_strip"]

_ROWS = 2**22
"""Pixels that are blended at a time."""
_MARGIN = 0.5
"""Space around an entry, in heights of the letters."""

Pixels = NDArray[np.uint8]


def blend(image: Pixels, colors: Pixels) -> Pixels:
    """Half image, half colors; both RGB uint8 (height, width, 3)."""
    return ((image.astype(np.uint16) + colors) // 2).astype(np.uint8)


def blended(image: Pixels, palette: Pixels, labels: Pixels) -> Pixels:
    """The classes' colors over the image, some rows at a time."""
    result = np.empty_like(image)
    rows = max(_ROWS // image.shape[1], 1)
    for top in range(0, len(image), rows):
        some = slice(top, top + rows)
        result[some] = blend(image[some], palette[labels[some]])
    return result


def legend_strip(width: int, classes: Sequence[tuple[str, Sequence[int]]]) -> Pixels:
    """Names of classes beside their colors, in lines of a width: RGB uint8 (height, width, 3).

    Args:
        width: pixels.
        classes: names with their RGB.
    """
    letters = min(max(width // 45, 9), 40)
    font = ImageFont.load_default(letters)
    margin = max(round(_MARGIN * letters), 1)
    line, left, lines = letters + 2 * margin, margin, 1
    places = []
    for name, color in classes:
        entry = letters + margin + round(font.getlength(name)) + 2 * margin
        if left > margin and left + entry > width:
            left, lines = margin, lines + 1
        places.append((left, (lines - 1) * line + margin, name, color))
        left += entry
    strip = Image.new("RGB", (width, lines * line), "white")
    pen = ImageDraw.Draw(strip)
    for x, y, name, color in places:
        pen.rectangle([x, y, x + letters - 1, y + letters - 1], fill=tuple(color), outline=(0, 0, 0))
        pen.text((x + letters + margin, y + letters / 2), name, fill=(0, 0, 0), font=font, anchor="lm")
    return np.asarray(strip)
