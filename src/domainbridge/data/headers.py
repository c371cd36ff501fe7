"""What the header of an image file says: size, bands, type of the values, orientation. No pixel is decoded."""

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from domainbridge.data.storage.tar import open_path
from domainbridge.errors import FileError

__all__ = ["LARGEST_WHOLE", "UNREADABLE", "Header", "header_of", "page_count", "read_header", "tiff_tags", "unreadable"]

logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # our own message names the file
Image.MAX_IMAGE_PIXELS = None  # satellite and slide images are larger than Pillow's limit; ours is below
LARGEST_WHOLE = 2**29
"""Largest image that is decoded as a whole: 1.6 GB as RGB."""
_MAX_INFLATION = 1100
"""Deflate makes data at most 1032 times smaller: a PNG whose header claims more has lost its data."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # as above
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, AttributeError, OverflowError),
    *(MemoryError, struct.error, Warning),
)
"""Errors that Pillow and NumPy raise on damaged files, and warnings where a program turns them into errors."""

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIZE, _BITS, _SAMPLES, _EXTRA, _FORMAT, _ORIENTATION = (257, 256), 258, 277, 338, 339, 274
_NODATA = 42113
_KINDS = {1: "uint", 2: "int", 3: "float"}
_MODES = {
    **dict.fromkeys(("1", "L", "P"), (1, "uint8")),
    **dict.fromkeys(("RGB", "YCbCr", "LAB", "HSV"), (3, "uint8")),
    **{"LA": (2, "uint8"), "PA": (2, "uint8"), "La": (2, "uint8"), "CMYK": (3, "uint8")},
    **dict.fromkeys(("RGBA", "RGBX", "RGBa"), (4, "uint8")),
    **dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), (1, "uint16")),
    **{"I": (1, "int32"), "F": (1, "float32")},
}
"""Pillow's mode -> number of bands and type of the values; CMYK and other color spaces become RGB."""
_PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ALPHA_MODES = ("LA", "PA", "La", "RGBA", "RGBa")


@dataclass(frozen=True)
class Header:
    """Of an image file.

    Attributes:
        format: PNG, JPEG, TIFF ...
        mode: Pillow's name of the kind of pixels; "" where Pillow does not know the combination.
        width, height: as stored.
        bands: channels per pixel, with alpha.
        dtype: type of the values: uint8, uint16, float32 ...
        alpha: whether the last band is declared as transparency.
        orientation: EXIF, 1 to 8; 1 is upright.
        nodata: value that marks pixels without a measurement, perhaps NaN (GDAL's tag of GeoTIFFs); None: not told.
    """

    format: str
    mode: str
    width: int
    height: int
    bands: int
    dtype: str
    alpha: bool
    orientation: int
    nodata: float | None = None

    @property
    def plain(self) -> bool:
        """Whether the pixels are gray, color or palette values of 8 bits, perhaps with transparency."""
        colors = self.bands - self.alpha
        return self.dtype == "uint8" and colors in (1, 3) and self.mode not in ("", "RGBX")

    def size(self, *, upright: bool = True) -> tuple[int, int]:
        """(height, width) of the decoded array."""
        turned = upright and self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)

    def __str__(self) -> str:
        kind = "band" if self.bands == 1 else "bands"
        return f"{self.bands} {kind} of {self.dtype}"


def read_header(path: Path, largest: int | None = LARGEST_WHOLE) -> Header:
    """The header of a file or archive member.

    Args:
        path: of the file.
        largest: pixels of the largest image that is accepted; None: any.

    Raises:
        FileError: missing, or no image.
    """
    try:
        with open_path(path) as file:
            return header_of(path, file, largest)
    except FileError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def header_of(path: Path, file: BinaryIO, largest: int | None = LARGEST_WHOLE) -> Header:
    """The header of an open file; ``path`` is for messages, ``largest`` as for :func:`read_header`.

    Raises:
        FileError: the image is too large, or its header claims more than the file can hold.
        OSError, ValueError ...: no image, see ``UNREADABLE``.
    """
    start = file.read(32)
    file.seek(0)
    try:
        with Image.open(file) as image:
            header = _from_pillow(image, start)
    except UnidentifiedImageError:
        if not start.startswith(_TIFF_MAGIC):
            raise
        header = _from_tiff(file)
    file.seek(0, io.SEEK_END)
    _check_plausible(path, header, file.tell(), largest)
    return header


def _from_pillow(image: Image.Image, start: bytes) -> Header:
    bands, dtype = _MODES.get(image.mode, (len(image.getbands()), "uint8"))
    alpha = image.mode in _ALPHA_MODES
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits = tags.get(_BITS, (8,))
        if bits and max(bits) > 8:
            dtype = f"{_KINDS.get(tags.get(_FORMAT, (1,))[0], 'uint')}{max(bits)}"
        samples = int(tags.get(_SAMPLES, 1))
        if samples > 1 and image.mode not in ("CMYK", "LAB", "YCbCr"):
            bands = samples
            alpha = tags.get(_EXTRA, (0,))[-1] in (1, 2) and samples in (2, 4)
    elif image.format == "PNG" and len(start) > 25 and start[24] == 16:
        bands, dtype, alpha = _PNG_BANDS.get(start[25], bands), "uint16", start[25] in (4, 6)
    elif image.format == "PPM" and image.mode == "RGB":
        codec, _, _, arguments = image.tile[0]  # type: ignore[attr-defined]
        if codec.startswith("ppm") and int(arguments[1]) > 255:  # the largest value, which Pillow makes 255
            dtype = "uint16"
    # Without EXIF data in the header, Pillow would decode the whole PNG to look for it.
    nodata = _nodata(image.tag_v2) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    exif = "exif" in image.info or image.format in ("TIFF", "JPEG", "MPO")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if exif else 1
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    return Header(str(image.format), image.mode, image.width, image.height, bands, dtype, alpha, orientation, nodata)


def _nodata(tags: TiffImagePlugin.ImageFileDirectory_v2) -> float | None:
    try:
        return float(str(tags[_NODATA]).strip(" \0"))
    except (KeyError, ValueError):
        return None


def _from_tiff(file: BinaryIO) -> Header:
    """From the tags of a TIFF whose combination of bands and types Pillow does not read."""
    directory = tiff_tags(file)
    bits = directory.get(_BITS, (8,))
    kind = _KINDS.get(directory.get(_FORMAT, (1,))[0], "uint")
    bands = int(directory.get(_SAMPLES, 1))
    alpha = bands in (2, 4) and tuple(directory.get(_EXTRA, (0,)))[-1] in (1, 2)
    height, width = (int(directory[tag]) for tag in _SIZE)
    orientation = int(directory.get(_ORIENTATION, 1))
    return Header("TIFF", "", width, height, bands, f"{kind}{max(bits)}", alpha, orientation, _nodata(directory))


def tiff_tags(file: BinaryIO) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The tags of a TIFF's first page, of kinds that Pillow does not read too.

    Raises:
        OSError, ValueError ...: no TIFF, see ``UNREADABLE``.
    """
    file.seek(0)
    start = file.read(16)
    directory = TiffImagePlugin.ImageFileDirectory_v2(start[:16] if start[2:4] in (b"+\0", b"\0+") else start[:8])
    file.seek(directory.next)
    directory.load(file)
    return directory


def _check_plausible(path: Path, header: Header, size: int, largest: int | None) -> None:
    pixels = header.width * header.height
    if largest is not None and pixels > largest:
        raise FileError(
            path,
            f"{header.width}x{header.height} pixels; at most {largest / 1e6:.0f} million are read. Cut the image "
            "into tiles",
        )
    if header.format == "PNG" and pixels * header.bands > 8 * _MAX_INFLATION * size:
        raise FileError(
            path,
            f"unreadable or truncated (the header says {header.width}x{header.height} pixels, the file has {size} "
            "bytes); restore or remove the file",
        )


def page_count(path: Path) -> int:
    """Number of pages of a TIFF, or of frames of an animation; 1 for other files and unreadable ones.

    Smaller pages behind the first one are its overviews, as GeoTIFFs have them, and do not count.
    """
    try:
        with open_path(path) as file, Image.open(file) as image:
            count, size = int(getattr(image, "n_frames", 1)), image.size
            if count > 1:
                image.seek(1)
            return count if image.size == size else 1
    except UNREADABLE:
        return 1


def _other_content(path: Path) -> str | None:
    """What a file without an image is, of the kinds that downloads leave behind; None for anything else."""
    try:
        with open_path(path) as file:
            start = file.read(64).lstrip()
    except (OSError, FileError):
        return None
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in the place of the file; git lfs pull fetches the file"
    return "a web page in the place of the file" if start.lower().startswith((b"<!doctype", b"<html")) else None


def unreadable(path: Path, error: Exception) -> FileError:
    """The message for a file that cannot be decoded."""
    if isinstance(error, FileNotFoundError):
        return FileError(path, "no such file")
    if isinstance(error, PermissionError):
        return FileError(path, "no right to read; give yourself the right", "no right to read")
    reason = _other_content(path) or "no known image format" if isinstance(error, UnidentifiedImageError) else error
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return FileError(path, f"unreadable or truncated ({reason}); restore or remove the file", "unreadable or truncated")
