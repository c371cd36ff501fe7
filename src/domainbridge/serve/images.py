"""A request's bytes to an image, with every limit checked before pixels are decoded."""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.bands import ImageRule
from domainbridge.data.decode import decode_image
from domainbridge.errors import DataError
from domainbridge.serve.refusal import RefusalError

__all__ = ["FORMATS", "decode"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


def decode(content: bytes, rule: ImageRule, pixels: int) -> NDArray[np.uint8]:
    """RGB, uint8 (height, width, 3).

    Args:
        content: of an image file of one of ``FORMATS``.
        rule: bands and scale of the model's training images.
        pixels: most that are decoded.

    Raises:
        RefusalError: 415, no image; 413, more pixels; 422, a damaged image, or one that the rule does not fit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about damaged headers
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into
        raise RefusalError(415, "no_image", f"the body is no image of the formats {', '.join(FORMATS)}") from error
    if width * height > pixels:
        raise RefusalError(
            413, "too_many_pixels", f"{width}x{height} pixels; at most {pixels / 1e6:g} megapixels are accepted"
        )
    try:
        return decode_image(Path("image"), content, rule)
    except DataError as error:
        raise RefusalError(422, "damaged_image", str(error).removeprefix("image: ")) from error
