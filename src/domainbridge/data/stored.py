"""Where bytes are: a file, or a member of a tar archive, whose path is ARCHIVE.tar/MEMBER.

So a set in a few large archives is read like one in a million small files, which object stores serve badly. Members are
read where they lie in the archive, in any order; nothing is unpacked.
"""

import io
import os
import tarfile
from functools import lru_cache
from pathlib import Path

from domainbridge.errors import DataError

__all__ = ["archive_members", "archives", "is_archives", "openable", "read_bytes", "stamp"]

_SUFFIX = ".tar"
_INSIDE = f"{_SUFFIX}{os.sep}"


def is_archives(path: Path) -> bool:
    """Whether it is the path of archives, perhaps with wildcards in its name, rather than of a folder."""
    return path.suffix == _SUFFIX and not path.is_dir()


def archives(pattern: Path) -> list[Path]:
    """The archives that a path with wildcards in its name means, sorted."""
    return sorted(pattern.parent.glob(pattern.name))


def archive_members(archive: Path) -> dict[str, tuple[int, int]]:
    """Name -> (first byte, number of bytes) of every file in an archive; only its headers are read, once.

    Raises:
        DataError: it is not a complete, uncompressed tar archive.
    """
    try:
        status = archive.stat()
        return _members(archive, status.st_size, status.st_mtime_ns)
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"{archive}: expected a complete tar archive without compression: {error}") from error


@lru_cache(maxsize=4096)
def _members(archive: Path, size: int, modified: int) -> dict[str, tuple[int, int]]:
    with tarfile.open(archive, "r:") as content:
        return {part.name.removeprefix("./"): (part.offset_data, part.size) for part in content if part.isfile()}


def read_bytes(path: Path) -> bytes:
    """The content of a file or member.

    Raises:
        OSError: it is not there, or cannot be read.
        DataError: the archive is damaged.
    """
    place = _member(path)
    if place is None:
        return path.read_bytes()
    archive, first, size = place
    with archive.open("rb") as file:
        file.seek(first)
        return file.read(size)


def openable(path: Path) -> Path | io.BytesIO:
    """What Pillow opens: the path itself, or a member's content.

    Raises:
        As :func:`read_bytes`.
    """
    return path if _member(path) is None else io.BytesIO(read_bytes(path))


def stamp(path: str) -> tuple[int, int]:
    """(size in bytes, modification time in ns); a member has its archive's time.

    Raises:
        As :func:`read_bytes`.
    """
    place = _member(Path(path)) if _INSIDE in path else None
    status = os.stat(path if place is None else place[0])  # noqa: PTH116 - a Path per file takes as long again
    return status.st_size if place is None else place[2], status.st_mtime_ns


def _member(path: Path) -> tuple[Path, int, int] | None:
    """Archive, first byte and size of a member; None for a file that is not in an archive."""
    text = str(path)
    end = text.find(_INSIDE)
    if end < 0 or Path(text[: end + len(_SUFFIX)]).is_dir():
        return None
    archive, name = Path(text[: end + len(_SUFFIX)]), text[end + len(_INSIDE) :].replace(os.sep, "/")
    if not archive.exists():
        raise FileNotFoundError(2, "No such file or directory", text)
    place = archive_members(archive).get(name)
    if place is None:
        raise FileNotFoundError(2, "No such file in the archive", text)
    return archive, *place
