"""From files to arrays, with messages that name the file.

Pillow opens every file. Pillow raises an error on a truncated file, where OpenCV may return a half-gray image, and
Pillow keeps the indices of a palette PNG. OpenCV decodes complete color JPEGs, color PNGs and gray PNGs, because OpenCV
gives the same values in less time. OpenCV also decodes PNGs of several 16-bit channels, which Pillow cannot read.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from domainbridge.data.storage.tar import open_path, read_bytes
from domainbridge.errors import DataError

__all__ = ["image_size", "read_first_channel", "read_image", "read_index_image"]

_INDEX_MODES = ("L", "P", "1")
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L")
_PNG_END = b"IEND\xaeB`\x82"
_ENDS = {"PNG": _PNG_END, "JPEG": b"\xff\xd9"}
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode to RGB, uint8 (height, width, 3).

    Raises:
        DataError: missing, unreadable or truncated.
    """
    try:
        content = read_bytes(path)
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in (*_DEEP_MODES, "F"):
                raise DataError(f"{path}: expected an 8-bit image, found mode {image.mode}; convert it to 8 bits")
            decoded = None
            if image.mode == "RGB" and _opencv_decodes(content, image):
                decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
            if decoded is None:
                decoded = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            return decoded.astype(np.uint8, copy=False)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _data_error(path, error) from error


def _opencv_decodes(content: bytes, header: Image.Image) -> bool:
    """Whether the file is a complete JPEG or PNG; Pillow decodes everything else."""
    end = _ENDS.get(header.format or "")
    return end is not None and "transparency" not in header.info and content.endswith(end)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the array that :func:`read_image` returns, from the header; no pixel is decoded.

    Raises:
        DataError: missing, or no image.
    """
    try:
        with open_path(path) as file, Image.open(file) as image:
            return (image.width, image.height) if _is_rotated(image) else (image.height, image.width)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _data_error(path, error) from error


def _is_rotated(header: Image.Image) -> bool:
    """Whether EXIF data swap height and width. Without EXIF data in the header, Pillow would decode the whole image."""
    return "exif" in header.info and header.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)


def read_index_image(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode a one-channel image to its values, uint8 or uint16 (height, width); palettes are not applied.

    Raises:
        DataError: as for images, or more than one channel, or more than 16 bits.
    """
    try:
        content = read_bytes(path)
        with Image.open(io.BytesIO(content)) as image:
            if image.mode not in (*_INDEX_MODES, *_DEEP_MODES):
                raise DataError(
                    f"{path}: expected a one-channel label image, found mode {image.mode}; if its colors are "
                    "classes, list them in label_map as '#rrggbb': class"
                )
            values = None
            if image.mode == "L" and image.format == "PNG" and _opencv_decodes(content, image):
                values = cv2.imdecode(
                    np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
                )
            if values is None:
                # A mask of one bit per pixel becomes 0 and 255, like the same mask in 8 bits.
                values = np.asarray(image.convert("L") if image.mode == "1" else image)
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _data_error(path, error) from error
    if image.mode not in _DEEP_MODES:
        return values.astype(np.uint8, copy=False)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        raise DataError(f"{path}: label values from {values.min()} to {values.max()}; expected 0 to 65535")
    return values.astype(np.uint16, copy=False)


def read_first_channel(path: Path) -> NDArray[np.uint16]:
    """The first (red) channel of a PNG of several 16-bit channels, uint16 (height, width).

    Raises:
        DataError: missing, unreadable, truncated, or of one channel.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise _data_error(path, error) from error
    # OpenCV fills the missing part of a truncated PNG instead of failing, so the end of the file is checked first.
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if _PNG_END in content else None
    if values is None:
        raise DataError(f"{path}: unreadable or truncated (no complete PNG); restore or remove the file")
    if values.ndim != 3:
        raise DataError(f"{path}: expected several channels with the class in the first channel, found one channel")
    return values[:, :, 2].astype(np.uint16)  # OpenCV's order is blue, green, red


def _data_error(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file")
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else error
    return DataError(f"{path}: unreadable or truncated ({reason}); restore or remove the file")
