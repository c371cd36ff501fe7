"""Reading annotation files: JSON, numbers and sizes, with one error that names the file."""

import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.base import Drawing
from domainbridge.data.storage.tar import open_path, read_bytes
from domainbridge.data.storage.virtual import parsed
from domainbridge.data.walk import files_below
from domainbridge.errors import DataError, FileError

__all__ = [
    "BACKGROUND_NAMES",
    "beginning",
    "damage_named",
    "first_file",
    "first_json",
    "first_names",
    "images_listed_twice",
    "keys_of",
    "member_name",
    "names_below",
    "names_like",
    "natural_order",
    "normal",
    "read_json_file",
    "read_npy",
    "scanned",
    "shapes_without_area",
    "text_of",
    "whole",
]

BACKGROUND_NAMES = ("background", "bg")
"""Names of the class of pixels without annotation, as :func:`normal` writes them."""
_SCANNED = 2000
"""Files of a folder that are read for the list of their categories; of more, evenly spread ones."""


@contextmanager
def damage_named(path: Path, expected: str) -> Iterator[None]:
    """Turn the errors of wrong content into a DataError that names the file and what was expected."""
    cause: Exception | None = None
    try:
        yield
        return
    except DataError:
        raise
    except FileNotFoundError:
        raise FileError(path, "no such file") from None
    except RecursionError:
        reason = "brackets are nested too deep"
    except UnicodeDecodeError as error:
        reason, cause = f"byte {error.object[error.start]:#04x} is no UTF-8 text; save the file as UTF-8", error
    except MemoryError:
        reason = "the sizes in it need more memory than there is"
    except KeyError as error:
        reason, cause = f"the key {error} is missing", error
    except Exception as error:  # whatever damaged content provokes: many libraries take part
        reason, cause = f"{type(error).__name__}: {str(error)[:200]}", error
    group = f"expected {expected}"
    raise FileError(path, f"{group} ({reason}); restore or remove the file", group) from cause


def read_json_file(path: Path, expected: str) -> Any:
    """Content of a JSON file; NaN and Infinity are refused where a number is used.

    Raises:
        DataError: missing or not JSON.
    """
    with damage_named(path, expected):
        content = read_bytes(path)
        return json.loads(content.decode(json.detect_encoding(content)))


def text_of(content: bytes, errors: str = "strict") -> str:
    """Text in UTF-8, or in UTF-16 with a byte order mark, as editors of Windows write it.

    Raises:
        UnicodeDecodeError: other bytes.
    """
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors=errors)


def read_npy(path: Path) -> NDArray[Any]:
    """Numbers in a ``.npy`` file.

    Raises:
        DataError: missing, damaged, or of objects.
    """
    with damage_named(path, "an array of numbers written by numpy.save"):
        content = read_bytes(path)
        try:
            array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # NumPy evaluates the header as Python: a damaged one fails in any way
            raise ValueError(str(error)) from error
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
            raise ValueError("no array of numbers")
        return array


def beginning(path: Path, size: int = 65536) -> str:
    """The first bytes of a file as text, "" if it cannot be read; unknown bytes are replaced."""
    try:
        with open_path(path) as file:
            return text_of(file.read(size), errors="replace")
    except (OSError, DataError):
        return ""


def keys_of(path: Path) -> frozenset[str]:
    """Keys of the object in a JSON file; empty for other content. Kept in memory while the file stays."""

    def read(file: Path) -> frozenset[str]:
        try:
            content_bytes = read_bytes(file)
            content = json.loads(content_bytes.decode(json.detect_encoding(content_bytes), errors="replace"))
        except (OSError, ValueError, RecursionError, DataError):
            return frozenset()
        return frozenset(content) if isinstance(content, dict) else frozenset()

    try:
        keys: frozenset[str] = parsed(path, "keys", read)
    except OSError:
        return frozenset()
    return keys


def whole(value: Any, what: str) -> int:
    """A number without fraction as int.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str) or float(value) != int(float(value)):
        raise ValueError(f"{what}: expected a whole number, found {value!r}")
    return int(float(value))


def normal(name: str) -> str:
    """A name for comparing: without case, and with ``_``, ``-`` and spaces alike."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sorting key: numbers inside a name by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def names_like(folder: Path, *suffixes: str) -> list[Path]:
    """Files in a folder itself with one of the suffixes, sorted; no hidden files."""
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".") and p.is_file()
    )


def names_below(folder: Path) -> list[str]:
    """Paths of the files below a folder, relative, with forward slashes; no hidden files."""
    return files_below(folder).names


def first_names(folder: Path, at_most: int) -> Iterator[str]:
    """The first names below a folder, without reading the rest of a large one."""
    count = 0
    for directory, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = os.path.relpath(directory, folder).replace(os.sep, "/")
        for name in sorted(names):
            if not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"
                count += 1
                if count >= at_most:
                    return


def first_file(folder: Path, *suffixes: str, at_most: int = 10_000) -> Path | None:
    """The first file below a folder with one of the suffixes, among the first ``at_most`` files."""
    if not folder.is_dir():
        return None
    names = first_names(folder, at_most)
    return next((folder / name for name in names if name.lower().endswith(suffixes)), None)


def first_json(folder: Path, *keys: str, at_most: int = 20) -> Path | None:
    """The first JSON file below a folder that has all of the keys, among the first ``at_most`` JSON files."""
    if not folder.is_dir():
        return None
    files = (folder / name for name in first_names(folder, 10_000) if name.lower().endswith(".json"))
    return next((file for file in islice(files, at_most) if keys_of(file) >= {*keys}), None)


def member_name(name: str) -> str:
    """The name of an image as part of a path below its annotation file: relative, with forward slashes."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return "/".join(part for part in parts if part not in ("/", "..", ".")) or "_"


def scanned(files: Sequence[Path], draw: Callable[[Path], Drawing]) -> tuple[list[str], tuple[str, ...]]:
    """Category names of files in the order of their first use, and notes about shapes without area.

    Damaged files are passed over: the check of the data names them.

    Raises:
        DataError: every file that was looked at is damaged; the error of the first one.
    """
    step = max(-(-len(files) // _SCANNED), 1)
    names: dict[str, None] = {}
    left_out: Counter[str] = Counter()
    errors: list[DataError] = []
    for file in files[::step]:
        try:
            used, kinds = parsed(file, "summary", lambda path: _summary(draw(path)))
        except (OSError, DataError) as error:
            errors.append(error if isinstance(error, DataError) else DataError(f"{file}: {error.strerror}"))
            continue
        names.update(dict.fromkeys(used))
        left_out.update(kinds)
    looked = len(files[::step])
    if errors and len(errors) == looked:
        raise errors[0]
    notes = [f"categories are those of {looked} of {len(files)} files"] if step > 1 else []
    return list(names), (*notes, *shapes_without_area(left_out))


def shapes_without_area(left_out: Counter[str]) -> list[str]:
    """A note about shapes that cannot become pixels, with their kinds."""
    counts = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
    return [f"shapes without area are left out: {counts}"] if left_out else []


def images_listed_twice(path: Path, twins: Sequence[str]) -> list[str]:
    """A note about images that an annotation file lists more than once."""
    return [f"{path.name}: images that are listed more than once: {len(twins)}, e.g. {twins[0]}"] if twins else []


def _summary(drawing: Drawing) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Categories and the kinds of shapes that are left out."""
    return tuple(dict.fromkeys(name for name, _ in drawing.shapes)), drawing.left_out
