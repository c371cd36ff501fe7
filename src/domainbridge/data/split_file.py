"""Split files: text files that list the images of a domain, in the forms in which people have them."""

import re
import unicodedata
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.walk import LABEL_SUFFIXES, suffix_of

__all__ = ["Match", "SplitEntries", "normalized", "read_split", "resolve", "split_line"]

_HEADERS = frozenset(
    {"image", "images", "img", "file", "filename", "file_name", "filepath", "file_path", "path", "name", "id", "stem"}
    | {"image_id", "image_path", "image_name", "imagename", "rgb", "input", "x", "split"}
)
_ROW_NUMBERS = frozenset({"", "index", "idx", "no", "no.", "nr", "number", "unnamed: 0"})
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_SEPARATOR = re.compile(r"\s*[,;\t]\s*|\s+")


@dataclass(frozen=True)
class SplitEntries:
    """What a split file lists.

    Attributes:
        entries: per line, the texts that may name an image, the most literal first.
        notes: remarks, each a sentence.
    """

    entries: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def normalized(name: str) -> str:
    """A relative name for comparison: NFC (macOS stores é as two characters), forward slashes."""
    return unicodedata.normalize("NFC", name)


def read_split(path: Path) -> SplitEntries:
    """The lines of a split file without empty lines, comments (#) and a header of columns.

    UTF-8, UTF-16 and Windows-1252.

    Raises:
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if encoding is None:  # of UTF-16 without a mark, every other byte of Latin text is 0
        zeros = content[:200:2].count(0), content[1:200:2].count(0)
        encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le" if zeros[1] else "utf-8"
    notes = []
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        notes.append(f"the split file {path} is no UTF-8 text; it is read as Windows-1252")
    lines = [line.strip().strip("\0") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) > 1 and _first_column(lines[0]).lower() in _HEADERS:
        notes.append(f"the first line of {path}, {lines[0]!r}, is taken for a header")
        lines = lines[1:]
    elif len(lines) > 1 and (column := _named_column(lines[0])) is not None:
        cells = [_cells(line) for line in lines]
        notes.append(f"the names of images are those of the column {cells[0][column]!r} of {path}")
        lines = [row[column] if column < len(row) else line for row, line in zip(cells[1:], lines[1:], strict=True)]
    return SplitEntries(tuple(tuple(dict.fromkeys(_readings(line))) for line in lines), tuple(notes))


def _cells(line: str) -> list[str]:
    """The columns of a line, without spaces and quotes."""
    return [cell.strip().strip("\"'") for cell in re.split(r"[,;\t]", line)]


def _named_column(header: str) -> int | None:
    """Position of the first column of images behind one of row numbers, as pandas writes them; None for no header."""
    cells = [cell.lower() for cell in _cells(header)]
    if len(cells) < 2 or cells[0] not in _ROW_NUMBERS:
        return None
    return next((position for position, cell in enumerate(cells) if cell in _HEADERS - {"id", "x", "split"}), None)


def split_line(name: str) -> str:
    """The line of a split file for an image; one that would read as a comment or a header begins with ``./``."""
    plain = not name.startswith("#") and _first_column(name).lower() not in _HEADERS
    return name if plain else f"./{name}"


def _first_column(line: str) -> str:
    return _SEPARATOR.split(line, maxsplit=1)[0].strip("\"'")


def _readings(line: str) -> Iterator[str]:
    """The whole line, the line before a comment, the first column with and without spaces, files after a number.

    Quotes are removed.
    """
    before_comment = re.split(r"\s#", line, maxsplit=1)[0]
    for text in (line, before_comment, re.split(r"[,;\t]", line, maxsplit=1)[0], _first_column(line)):
        yield text.strip().strip("\"'")
    if _first_column(line).isdigit():  # a row number, as in lists of MXNet and tables without header
        yield from (cell for cell in _cells(line)[1:] if suffix_of(cell) in LABEL_SUFFIXES)


@dataclass(frozen=True)
class Match:
    """The image that a line of a split file means.

    Attributes:
        stem: of the image.
        dropped: the folders before the name in the line, which are not below the images folder.
    """

    stem: str
    dropped: str


def resolve(readings: tuple[str, ...], stems: Container[str], stem_of: Callable[[str], str | None]) -> Match | None:
    """The image that a line means; None if no reading of the line is a known image.

    Args:
        readings: of the line.
        stems: the known stems, normalized.
        stem_of: the stem of a relative file name, None for a name that does not fit the pattern of images.
    """
    whole = [("", _spelled(reading)) for reading in readings]
    # A column is tried before the whole line, whose second column may end like the first.
    shortened = [part for reading in reversed(readings) for part in _without_folders(_spelled(reading))]
    for dropped, name in (*whole, *shortened):
        bare = name.rpartition(".")[0] if suffix_of(name) in LABEL_SUFFIXES else None
        for stem in (name, stem_of(name), bare):
            if stem is not None and stem in stems:
                return Match(stem, dropped)
    return None


def _spelled(reading: str) -> str:
    """A name with forward slashes and without './'."""
    name = normalized(reading.replace("\\", "/"))
    while name.startswith("./"):
        name = name[2:]
    return name


def _without_folders(name: str) -> Iterator[tuple[str, str]]:
    """(dropped folders, the rest of the name), without one leading folder after the other."""
    rest = name
    while "/" in rest:
        rest = rest.partition("/")[2]
        if rest:
            yield name.removesuffix(rest), rest
