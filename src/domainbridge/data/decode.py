"""Image files to arrays, with messages that name the file.

Pillow opens every file. Pillow raises an error on a truncated file, where OpenCV may return a half-gray image. OpenCV
decodes complete color JPEGs and color PNGs, because OpenCV gives the same values in less time.
"""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from domainbridge.data.bands import ImageRule, decode_bands, to_rgb
from domainbridge.data.headers import UNREADABLE, Header, header_of, read_header, unreadable
from domainbridge.data.storage.tar import read_bytes
from domainbridge.errors import FileError

__all__ = ["PNG_END", "count_colors", "decode_image", "image_size", "is_complete", "packed_colors", "read_image"]

PNG_END = b"IEND\xaeB`\x82"
_ENDS = {"PNG": PNG_END, "JPEG": b"\xff\xd9"}
_PLAIN = ImageRule()


def read_image(path: Path, rule: ImageRule = _PLAIN) -> NDArray[np.uint8]:
    """Decode to RGB, uint8 (height, width, 3).

    Args:
        path: of a file or archive member.
        rule: choice of bands, scale of the values, EXIF orientation.

    Raises:
        FileError: missing, unreadable or truncated; or bands or a scale are needed.
    """
    try:
        content = read_bytes(path)
    except FileError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return decode_image(path, content, rule)


def decode_image(path: Path, content: bytes, rule: ImageRule = _PLAIN) -> NDArray[np.uint8]:
    """The same from the content of a file; ``path``: what messages call the file.

    Raises:
        FileError: as for :func:`read_image`.
    """
    try:
        header = header_of(path, io.BytesIO(content))
        if not header.plain or rule.by_value or (header.format == "TIFF" and header.alpha):
            rgb = to_rgb(path, decode_bands(path, content, header), header, rule)
            return _oriented(rgb, header.orientation if rule.exif == "upright" else 1)
        return _decode_plain(content, header, rule)
    except FileError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _decode_plain(content: bytes, header: Header, rule: ImageRule) -> NDArray[np.uint8]:
    decoded: NDArray[Any] | None = None
    raw = rule.exif == "raw"
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == "RGB" and "transparency" not in image.info and is_complete(content, header.format):
            flags = cv2.IMREAD_COLOR_RGB | (cv2.IMREAD_IGNORE_ORIENTATION if raw else 0)
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if decoded is None:
            decoded = np.asarray((image if raw else ImageOps.exif_transpose(image)).convert("RGB"))
    return decoded.astype(np.uint8, copy=False)


def is_complete(content: bytes, file_format: str) -> bool:
    """Whether the content is a JPEG or PNG with its end, which OpenCV decodes as Pillow does."""
    end = _ENDS.get(file_format)
    return end is not None and content.endswith(end)


def image_size(path: Path, rule: ImageRule = _PLAIN) -> tuple[int, int]:
    """(height, width) of the array that :func:`read_image` returns, from the header; no pixel is decoded.

    Raises:
        FileError: missing, or no image.
    """
    return read_header(path).size(upright=rule.exif == "upright")


def packed_colors(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """uint8 (..., 3) as 24-bit numbers, int32 (...)."""
    wide = rgb.astype(np.int32)
    packed: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def count_colors(rgb: NDArray[np.uint8], sampled: int) -> int:
    """Number of colors of about ``sampled`` evenly spread pixels of an image, uint8 (height, width, 3)."""
    pixels = rgb.reshape(-1, 3)
    return len(np.unique(packed_colors(pixels[:: max(len(pixels) // sampled, 1)])))


def _oriented(array: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn and mirror as EXIF's orientation (1 to 8) says."""
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
