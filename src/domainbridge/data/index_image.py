"""Label files of one value per pixel: PNG, TIFF, BMP, GIF, NumPy arrays, and color files whose channels are equal."""

import io
from collections.abc import Container
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.bands import decode_bands
from domainbridge.data.decode import PNG_END, is_complete, packed_colors
from domainbridge.data.headers import UNREADABLE, Header, header_of, read_header, tiff_tags, unreadable
from domainbridge.data.storage.tar import open_path, read_bytes
from domainbridge.errors import FileError
from domainbridge.types import IGNORE

__all__ = ["label_size", "read_first_channel", "read_index_image"]

_INDEX_MODES = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L", "F")
_MAX_VALUE = np.iinfo(np.uint16).max
_NAMED_COLORS = 5
_TIFF_BITS, _GDAL_NODATA = 258, 42113

IndexArray = NDArray[np.uint8] | NDArray[np.uint16]


def read_index_image(path: Path, spread: Container[int] = (1,), void: int | None = IGNORE) -> IndexArray:
    """The value of each pixel, uint8 or uint16 (height, width); palettes are not applied.

    Args:
        path: of a file or archive member.
        spread: depths (1, 2 or 4 bits per gray value) whose values are spread to 0 to 255, as viewers show them, and
            not read as stored.
        void: value of the pixels of -1, and of those that a TIFF declares as no data by a value that is no id. None:
            such files are refused.

    Raises:
        FileError: missing, unreadable, truncated; several channels that differ; no whole numbers from 0 to 65535.
    """
    try:
        content = read_bytes(path)
        is_array = path.suffix.lower() == ".npy"
        values = _from_npy(path, content) if is_array else _decode(path, content, spread)
    except FileError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if values.dtype in (np.uint8, np.uint16):
        return values
    return _as_index(path, _without_void(values, void, None if is_array else _nodata(content)))


def _decode(path: Path, content: bytes, spread: Container[int]) -> NDArray[Any]:
    header = header_of(path, io.BytesIO(content))
    colors = header.bands - header.alpha
    if colors not in (1, 3):
        raise FileError(path, f"expected a label of one channel, found {header}", f"label of {header}")
    if not header.mode or (header.dtype != "uint8" and header.bands > 1):
        return _common_band(path, decode_bands(path, content, header)[..., :colors], header)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode == "1":
            return np.where(np.asarray(image), np.uint8(IGNORE if 1 in spread else 1), np.uint8(0))
        bits = _small_depth(image, content)
        if bits is not None and bits not in spread:
            return np.asarray(image) // np.uint8(IGNORE // (2**bits - 1))
        if image.mode == "L" and image.format == "PNG" and is_complete(content, "PNG"):
            gray = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
            if gray is not None:
                return gray
        if image.format == "PPM" and image.mode in ("L", "I"):  # whose values Pillow spreads to its largest ones
            image.load()
            as_written = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if as_written is not None:
                return as_written
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


def _small_depth(image: Image.Image, content: bytes) -> int | None:
    """2 or 4 for a gray file of so many bits per pixel, whose values Pillow and OpenCV spread to 0 to 255."""
    bits = None
    if image.format == "PNG" and content[25] == 0:
        bits = content[24]
    elif image.format == "TIFF" and image.mode == "L":
        bits = max(image.tag_v2.get(_TIFF_BITS, (8,)))  # type: ignore[attr-defined]
    return bits if bits in (2, 4) else None


def _common_band(path: Path, bands: NDArray[Any], header: Header) -> NDArray[Any]:
    """The only band, or the common one of several that are equal."""
    common: NDArray[Any] = bands[..., 0]
    if not (bands == common[..., None]).all():
        raise FileError(path, f"expected a label of one channel, found {header}", f"label of {header}")
    return common


def _nodata(content: bytes) -> float | None:
    """The value that a TIFF declares as no data, if it declares one that is no id."""
    try:
        declared = float(str(tiff_tags(io.BytesIO(content))[_GDAL_NODATA]).strip("\0 "))
    except UNREADABLE:  # no TIFF, or without this tag
        return None
    return None if 0 <= declared <= _MAX_VALUE else declared


def _without_void(values: NDArray[Any], void: int | None, nodata: float | None) -> NDArray[Any]:
    """``void`` in the place of -1, which exports of annotation tools write for "no class", and of ``nodata``."""
    empty = values == -1
    if nodata is not None:
        empty |= np.isnan(values) if np.isnan(nodata) else values == nodata
    if void is None or not empty.any():
        return values
    return np.where(empty, void, values.astype(np.int64) if values.dtype.kind in "iu" else values)


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
    low, high = values.min(), values.max()
    if values.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high) and (values == np.floor(values)).all()):
        raise FileError(
            path, f"label values from {low} to {high}; expected whole numbers", "values are no whole numbers"
        )
    if low < 0 or high > _MAX_VALUE:
        raise FileError(
            path,
            f"label values from {low} to {high}; expected 0 to {_MAX_VALUE}. Pixels without a class may have -1, or "
            "the value that the file declares as no data (gdal_edit.py -a_nodata)",
            "values outside 0 to 65535",
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
