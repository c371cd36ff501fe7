"""Images of more than 8 bits or with other bands than red, green and blue: from their values to 8-bit RGB."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.headers import Header
from domainbridge.errors import FileError

__all__ = [
    "ImageRule",
    "Limits",
    "choose_bands",
    "decode_bands",
    "scale_advice",
    "scale_limits",
    "to_rgb",
]

_ALPHA_SHARE = 0.9
"""Share of 0 and 255 from which a band is taken for transparency; photographs of plants in infrared have few."""


@dataclass(frozen=True)
class ImageRule:
    """How the values of image files become 8-bit RGB.

    Attributes:
        bands: the bands to take as red, green and blue, or one band as gray; the first band is 1. None: the file's
            only band, or its three.
        scale: the values that become 0 and 255; values outside are clipped. None: 8-bit values as they are.
        percentiles: in place of ``scale``: the percentiles of each image and band that become 0 and 255, of its
            measured values: without NaN and without what the file marks as nodata.
        exif: "upright" turns the image as its EXIF data say; "raw" keeps the rows as stored.
    """

    bands: tuple[int, ...] | None = None
    scale: tuple[float, float] | None = None
    percentiles: tuple[float, float] | None = None
    exif: Literal["upright", "raw"] = "upright"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "ImageRule":
        """From the plain values of ``dataclasses.asdict``.

        Raises:
            ValueError: unknown keys, or values that make no rule.
            TypeError: values of other types.
        """
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        rule = cls(**values)
        for name in ("scale", "percentiles"):
            limits = getattr(rule, name)
            if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
                raise ValueError(f"{name} {limits!r}; expected [low, high]")
        if rule.bands is not None and not (len(rule.bands) in (1, 3) and min(rule.bands) >= 1):
            raise ValueError(f"bands {rule.bands!r}; expected one band or three, from 1 on")
        if rule.exif not in ("upright", "raw"):
            raise ValueError(f"exif {rule.exif!r}; expected upright or raw")
        return rule

    @property
    def by_value(self) -> bool:
        """Whether values are chosen or scaled."""
        return not (self.bands is None and self.scale is None and self.percentiles is None)


def decode_bands(path: Path, content: bytes, header: Header) -> NDArray[Any]:
    """All bands as stored: (height, width, bands), any type.

    Raises:
        FileError: a part for reading is not installed, or the file cannot be read.
        OSError, ValueError ...: the file is damaged.
    """
    if header.format == "TIFF" and not (header.bands == 1 and header.mode):
        return _tiff_bands(path, content, header)
    if header.format in ("PNG", "PPM") and header.dtype == "uint16":
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if header.format == "PNG" and b"IEND" not in content[-16:]:  # OpenCV fills the missing part of a truncated PNG
            values = None
        if values is None:
            raise ValueError(f"no complete {header.format}")
        return _in_rgb_order(values)
    with Image.open(io.BytesIO(content)) as image:
        if image.mode not in ("L", "RGB", "RGBA", "LA", "F", "I") and not image.mode.startswith("I;16"):
            return np.asarray(image.convert("RGB"))
        return np.atleast_3d(np.asarray(image))


def _tiff_bands(path: Path, content: bytes, header: Header) -> NDArray[Any]:
    """With rasterio where it is installed; OpenCV reads up to four bands."""
    try:
        import rasterio.io
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    except ImportError:
        values = None
        if header.bands in (1, 3, 4):
            values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise FileError(
                path, f"{header}; a TIFF of this kind is read with rasterio: pip install 'domainbridge[geotiff]'"
            ) from None
        return _in_rgb_order(values)
    # For the whole process: decoding threads cannot change the filter for themselves alone.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    try:
        with rasterio.io.MemoryFile(content) as memory, memory.open() as raster:  # type: ignore[no-untyped-call]
            return np.moveaxis(raster.read(), 0, -1)
    except RasterioError as error:
        raise ValueError(str(error)) from error


def _in_rgb_order(values: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's blue, green, red (alpha) as red, green, blue (alpha)."""
    if values.ndim == 2:
        return values[..., None]
    order = [2, 1, 0, 3][: values.shape[2]]
    return values[..., order]


Limits = tuple[Any, Any]
"""The values that become 0 and 255: numbers, or float32 (bands,)."""


def to_rgb(
    path: Path, values: NDArray[Any], header: Header, rule: ImageRule, limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Choose bands and scale the values: uint8 (height, width, 3), rows as stored.

    Args:
        path: for messages.
        values: all bands, (height, width, bands).
        header: of the file.
        rule: see there.
        limits: of a part of an image: those of the whole one (``scale_limits``).

    Raises:
        FileError: bands or a scale must be given, or the given ones do not fit the file.
    """
    chosen = values[..., [band - 1 for band in choose_bands(path, values, header, rule)]]
    limits = limits or scale_limits(path, chosen, header, rule)
    rgb = chosen if limits is None else _scaled(chosen, limits, header.nodata)
    return np.ascontiguousarray(np.repeat(rgb, 3, axis=2) if rgb.shape[2] == 1 else rgb).astype(np.uint8, copy=False)


def choose_bands(path: Path, values: NDArray[Any], header: Header, rule: ImageRule) -> tuple[int, ...]:
    """The bands that are red, green and blue, or the one that is gray; the first band is 1.

    Raises:
        FileError: bands must be given, or the given ones do not fit the file.
    """
    if rule.bands is not None:
        if max(rule.bands) > values.shape[2]:
            raise FileError(path, f"{header}, but bands asks for band {max(rule.bands)}", "too few bands")
        return rule.bands
    colors = values.shape[2] - header.alpha
    if header.alpha and header.format == "TIFF" and not _is_transparency(values[..., -1]):
        colors = values.shape[2]  # declared as alpha, as GDAL does by default, but full of measured values
    if colors not in (1, 3):
        example = "[1, 2, 3]" if values.shape[2] > 2 else "[1]"
        scale = ""
        if values.dtype != np.uint8 and rule.scale is None and rule.percentiles is None:
            scale = f"; {scale_advice(*_limits(values, header.nodata))}"
        raise FileError(
            path,
            f"{header}; which are red, green and blue? Set bands, e.g. bands: {example} (the first band is 1){scale}",
            f"{header}, which are red, green and blue?",
        )
    return tuple(range(1, colors + 1))


def scale_limits(path: Path, values: NDArray[Any], header: Header, rule: ImageRule) -> Limits | None:
    """The values of the chosen bands, (height, width, bands), that become 0 and 255; None: they stay as they are.

    Raises:
        FileError: a scale must be given, or the given one does not fit the file.
    """
    if rule.percentiles is not None:
        return _percentiles(values, header.nodata, rule.percentiles)
    if rule.scale is None:
        if values.dtype != np.uint8:
            limits = _limits(values, header.nodata)
            raise FileError(path, f"{header}; {scale_advice(*limits)}", f"{header}", limits=limits)
        return None
    if values.dtype == np.uint8 and rule.scale[1] > np.iinfo(np.uint8).max:
        raise FileError(
            path,
            f"8-bit values, but scale is {list(rule.scale)}: this file would be almost black; keep files of one depth "
            "in a domain",
            "8-bit values with a scale for deeper files",
        )
    low, high = (np.asarray(limit, np.float32) for limit in rule.scale)
    return low, high


def _is_transparency(band: NDArray[Any]) -> bool:
    top = np.iinfo(band.dtype).max if np.issubdtype(band.dtype, np.integer) else 1
    return bool(((band == 0) | (band == top)).mean() >= _ALPHA_SHARE)


def _unmeasured(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Which values are no measurements: NaN, and the file's own mark."""
    missing: NDArray[np.bool_] = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)
    if nodata is not None and not np.isnan(nodata):
        with np.errstate(over="ignore"):  # a mark beyond the type's range marks nothing, or is infinite
            missing |= values == nodata
    return missing


def _percentiles(values: NDArray[Any], nodata: float | None, shares: tuple[float, float]) -> Limits:
    """Of each band's measured values, float32 (bands,) each; 0 for a band without any."""
    numbers, missing = values.astype(np.float32), _unmeasured(values, nodata)
    if not missing.any():
        low, high = np.percentile(numbers, shares, axis=(0, 1))
        return low, high
    numbers[missing] = np.nan
    numbers[..., missing.all(axis=(0, 1))] = 0
    low, high = np.nanpercentile(numbers, shares, axis=(0, 1))
    return low, high


def _limits(values: NDArray[Any], nodata: float | None) -> tuple[float, float]:
    """Smallest and largest finite measured value; 0 and 1 without any."""
    finite = values[np.isfinite(values) & ~_unmeasured(values, nodata)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def scale_advice(low: float, high: float) -> str:
    """What to write in a recipe for files of more than 8 bits with values from ``low`` to ``high``."""
    whole = low >= 0 and high == int(high) and high > 1
    top = 2 ** max(int(high).bit_length(), 8) - 1 if whole else high
    top = max(top, min(low, 0) + 1) if low == high else top  # of an image of one value
    return (
        f"values {low:g} to {high:g}; which become black and white? Set scale: [{min(low, 0):g}, {top:g}] or "
        "percentiles: [2, 98]"
    )


def _scaled(values: NDArray[Any], limits: Limits, nodata: float | None) -> NDArray[np.uint8]:
    """Linear from [low, high] to [0, 255], rounded; what is no measurement becomes 0, also where its mark is high."""
    low, high = limits
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    levels = np.clip((np.nan_to_num(values.astype(np.float32), nan=0.0) - low) / span * 255 + 0.5, 0, 255)
    levels[_unmeasured(values, nodata)] = 0
    rounded: NDArray[np.uint8] = levels.astype(np.uint8)
    return rounded
