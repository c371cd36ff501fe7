"""Label files of one value per pixel: PNG, TIFF, BMP, GIF, NumPy arrays, and color files whose channels are equal."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.decode import PNG_END, is_complete, packed_colors
from domainbridge.data.headers import UNREADABLE, header_of, read_header, unreadable
from domainbridge.data.storage.tar import open_path, read_bytes
from domainbridge.errors import FileError
from domainbridge.types import IGNORE

__all__ = ["label_size", "read_first_channel", "read_index_image"]

_INDEX_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "F")
_MAX_VALUE = np.iinfo(np.uint16).max
_NAMED_COLORS = 5

IndexArray = NDArray[np.uint8] | NDArray[np.uint16]


def read_index_image(path: Path, one_bit_value: int = 255) -> IndexArray:
    """The value of each pixel, uint8 or uint16 (height, width); palettes are not applied.

    Args:
        path: of a file or archive member.
        one_bit_value: value of the set pixels of a file of one bit per pixel.

    Raises:
        FileError: missing, unreadable, truncated; several channels that differ; no whole numbers from 0 to 65535.
    """
    try:
        content = read_bytes(path)
        values = _from_npy(path, content) if path.suffix.lower() == ".npy" else _decode(path, content, one_bit_value)
    except FileError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    return _as_index(path, values)


def _decode(path: Path, content: bytes, one_bit_value: int) -> NDArray[Any]:
    header = header_of(path, io.BytesIO(content))
    if not header.mode:
        raise FileError(path, f"expected a label of one channel, found {header}", f"label of {header}")
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == "1":
            return np.where(np.asarray(image), np.uint8(one_bit_value), np.uint8(0))
        if image.mode == "L" and image.format == "PNG" and is_complete(content, "PNG"):
            gray = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
            if gray is not None:
                return gray
        if image.format == "GIF":  # whose writers renumber palettes: gray values are in the palette
            rgb = np.asarray(image.convert("RGB"))
            gray = rgb[..., 0]
            return gray if _is_gray(rgb) else np.asarray(image)
        if image.mode in _INDEX_MODES:
            return np.asarray(image)
        return _equal_channels(path, np.asarray(image.convert("RGB")), image.mode)


def _from_npy(path: Path, content: bytes) -> NDArray[Any]:
    try:
        values: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy evaluates the header as Python: a damaged one fails in any way
        raise unreadable(path, error) from error
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[..., 0] if values.shape[2] == 1 else values[0]
    if values.ndim != 2 or values.dtype.kind not in "buif" or not values.size:
        raise FileError(
            path,
            f"expected an array (height, width) of whole numbers, found {values.dtype} {values.shape}",
            f"array of {values.dtype} with {values.ndim} axes",
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _equal_channels(path: Path, rgb: NDArray[np.uint8], mode: str) -> NDArray[np.uint8]:
    """The common value of three equal channels."""
    if _is_gray(rgb):
        return rgb[..., 0]
    packed = packed_colors(rgb)
    colors, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts)
    common = ", ".join(f"'#{colors[i]:06x}' {counts[i] / packed.size:.0%}" for i in order[:_NAMED_COLORS])
    raise FileError(
        path,
        f"expected a one-channel label image, found mode {mode} with {len(colors)} colors: {common}"
        f"{' ...' if len(colors) > _NAMED_COLORS else ''}; if its colors are classes, list them in label_map as "
        "'#rrggbb': class",
        "labels are colors, without label_map",
    )


def _is_gray(rgb: NDArray[np.uint8]) -> bool:
    return np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])


def _as_index(path: Path, values: NDArray[Any]) -> IndexArray:
    if values.dtype in (np.uint8, np.uint16):
        return values
    low, high = values.min(), values.max()
    if low == -1 and high < IGNORE:  # exports of annotation tools write -1 for "no class"
        return np.where(values < 0, IGNORE, values).astype(np.uint8)
    if values.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high) and (values == np.floor(values)).all()):
        raise FileError(
            path, f"label values from {low} to {high}; expected whole numbers", "values are no whole numbers"
        )
    if low < 0 or high > _MAX_VALUE:
        raise FileError(
            path, f"label values from {low} to {high}; expected 0 to {_MAX_VALUE}", "values outside 0 to 65535"
        )
    return values.astype(np.uint16)


def label_size(path: Path) -> tuple[int, int]:
    """(height, width) of a label, from the header.

    Raises:
        FileError: missing, or no label.
    """
    if path.suffix.lower() != ".npy":
        return read_header(path).size(upright=False)
    try:
        with open_path(path) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            shape, _, _ = read(file)
        height, width = shape[1:] if len(shape) == 3 and shape[0] == 1 != shape[2] else shape[:2]
        return int(height), int(width)
    except Exception as error:  # as for the array itself
        raise unreadable(path, error) from error


def read_first_channel(path: Path) -> NDArray[np.uint16]:
    """The first (red) channel of a PNG of several 16-bit channels, uint16 (height, width).

    Raises:
        FileError: missing, unreadable, truncated, or of one channel.
    """
    try:
        content = read_bytes(path)
    except OSError as error:
        raise unreadable(path, error) from error
    # OpenCV fills the missing part of a truncated PNG instead of failing, so the end of the file is checked first.
    values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if PNG_END in content else None
    if values is None:
        raise FileError(path, "unreadable or truncated (no complete PNG); restore or remove the file")
    if values.ndim != 3:
        raise FileError(path, "expected several channels with the class in the first channel, found one channel")
    return values[:, :, 2].astype(np.uint16)  # OpenCV's order is blue, green, red
