"""Image files of any size, read window by window with rasterio, and what a georeferenced one says about its place."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.bands import ImageRule, choose_bands, scale_limits, to_rgb
from domainbridge.data.headers import Header
from domainbridge.errors import FileError

__all__ = [
    "GeoReference",
    "RasterImage",
    "has_rasterio",
    "is_georeferenced",
    "open_raster",
    "rasterio_settings",
    "reads_by_windows",
]

_CACHE_BYTES = 64 * 2**20
"""Of GDAL's decoded blocks; its default is a twentieth of the memory."""
_SAMPLE_SIDE = 2048
"""Longest side of the reduced image that percentiles and the kind of an alpha band are told from."""
_ROWS_AT_ONCE = 256
_MODES = ("L", "RGB", "RGBA", "LA", "I;16", "I;16B", "")
"""Pillow's kinds of pixels whose bands rasterio gives as Pillow does; palettes and other color spaces are not."""


@dataclass(frozen=True)
class GeoReference:
    """Where the pixels of a georeferenced image lie.

    Attributes:
        crs: rasterio's coordinate reference system, or None.
        transform: rasterio's affine transform from pixels to coordinates.
    """

    crs: Any
    transform: Any


def has_rasterio() -> bool:
    """Whether the extra ``geotiff`` is installed."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def rasterio_settings() -> Iterator[None]:
    """Bounded memory for GDAL's blocks, no files beside the written ones, no remark about images without a place."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES, GDAL_PAM_ENABLED="NO"):  # type: ignore[no-untyped-call]
        yield


def is_georeferenced(path: Path) -> bool:
    """Whether a TIFF says where on Earth it lies; False without rasterio, and for a file that cannot be read."""
    if not has_rasterio():
        return False
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio_settings(), rasterio.open(path) as file:
            return file.crs is not None or not file.transform.is_identity
    except RasterioError:
        return False


@contextmanager
def open_raster(
    path: Path, header: Header, rule: ImageRule, size: tuple[int, int] | None = None
) -> "Iterator[RasterImage]":
    """An image file for reading by windows.

    Args:
        path: of the file.
        header: of the file.
        rule: choice of bands, scale of the values.
        size: (height, width) that the image is reduced or enlarged to; None: as stored.

    Raises:
        FileError: bands or a scale are needed, or the file cannot be read; reading a window may raise it too.
    """
    import rasterio
    from rasterio.errors import RasterioError

    with rasterio_settings():
        try:
            with rasterio.open(path) as file:
                yield RasterImage(path, file, header, rule, size or file.shape)
        except RasterioError as error:
            raise FileError(path, f"cannot be read ({error})", "cannot be read by windows") from error


def reads_by_windows(header: Header) -> bool:
    """Whether windows of such a file have the values that reading the whole file gives."""
    return header.format in ("TIFF", "PNG", "JPEG") and header.mode in _MODES and header.orientation == 1


class RasterImage:
    """An open file as RGB at a chosen size; rows that were read stay until rows below them are asked for.

    Attributes:
        shape: (height, width, 3).
        place: where the pixels of the stored image lie; None for an image that does not say so.
        file_size: (height, width) of the file.
    """

    def __init__(self, path: Path, file: Any, header: Header, rule: ImageRule, size: tuple[int, int]) -> None:
        self.path, self.file, self.header = path, file, header
        self.shape = (*size, 3)
        self.file_size: tuple[int, int] = file.shape
        here = file.crs is not None or not file.transform.is_identity
        self.place = GeoReference(file.crs, file.transform) if here else None
        sample = self._sample()
        self.rule = replace(rule, bands=choose_bands(path, sample, header, rule))
        self.limits = scale_limits(path, sample[..., [band - 1 for band in self.rule.bands or ()]], header, rule)
        self._nodata = file.nodata
        self._tiled = file.block_shapes[0][1] < file.width
        self._rows: NDArray[np.uint8] = np.empty((0, size[1], 3), np.uint8)
        self._top = 0

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.uint8]:
        """RGB, uint8 (rows, columns, 3).

        Raises:
            FileError: the file is damaged there.
        """
        rows, columns = window
        if self._tiled:
            return self._read(rows.start, rows.stop, columns.start, columns.stop)
        bottom = self._top + len(self._rows)
        if rows.start < self._top or rows.start > bottom:
            self._rows, self._top, bottom = self._rows[:0], rows.start, rows.start
        if rows.stop > bottom:
            kept = self._rows[rows.start - self._top :]
            new = [
                self._read(top, min(top + _ROWS_AT_ONCE, rows.stop), 0, self.shape[1])
                for top in range(bottom, rows.stop, _ROWS_AT_ONCE)
            ]
            self._rows, self._top = np.concatenate([kept, *new]), rows.start
        return self._rows[rows.start - self._top : rows.stop - self._top, columns]

    def resized(self, size: tuple[int, int]) -> "RasterImage":
        """The same open file, bands and limits at another size, (height, width)."""
        other = copy(self)
        other.shape = (*size, 3)
        other._rows, other._top = np.empty((0, size[1], 3), np.uint8), 0
        return other

    def without_data(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """Which stored pixels the file marks as empty, bool (rows, columns); None: the file marks none."""
        if self._nodata is None:
            return None
        bands = [band for band in self.rule.bands or () if band <= self.file.count]
        values = self.file.read(bands, window=((rows.start, rows.stop), (columns.start, columns.stop)))
        empty: NDArray[np.bool_] = np.isnan(values) if np.isnan(self._nodata) else values == self._nodata
        return np.asarray(empty.all(axis=0))

    def _read(self, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window

        down, across = self.file_size[0] / self.shape[0], self.file_size[1] / self.shape[1]
        place = Window(left * across, top * down, (right - left) * across, (bottom - top) * down)
        resampling = Resampling.nearest if self.file_size == self.shape[:2] else Resampling.bilinear
        try:
            values = self.file.read(window=place, out_shape=(bottom - top, right - left), resampling=resampling)
        except RasterioError as error:
            raise FileError(
                self.path,
                f"unreadable or truncated ({error}); restore or remove the file",
                "unreadable or truncated",
            ) from error
        return to_rgb(self.path, np.moveaxis(values, 0, -1), self.header, self.rule, self.limits)

    def _sample(self) -> NDArray[Any]:
        """The image reduced, all bands: (height, width, bands)."""
        from rasterio.enums import Resampling

        scale = min(_SAMPLE_SIDE / max(self.file_size), 1.0)
        height, width = (max(round(side * scale), 1) for side in self.file_size)
        values = self.file.read(out_shape=(self.file.count, height, width), resampling=Resampling.nearest)
        return np.moveaxis(values, 0, -1)
