"""Where bytes are: a file, or a member of a tar archive, whose path is ARCHIVE.tar/MEMBER.

So a set in a few large archives is read like one in a million small files, which object stores serve badly. Members are
read where they lie in the archive, in any order; nothing is unpacked.
"""

import io
import os
import tarfile
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from domainbridge.errors import DataError

__all__ = ["archive_members", "archives", "is_archives", "opened", "read_bytes", "stamp"]

_SUFFIX = ".tar"
_INSIDE = f"{_SUFFIX}{os.sep}"


def is_archives(path: Path) -> bool:
    """Whether it is the path of archives, perhaps with wildcards in its name, rather than of a folder."""
    return path.suffix == _SUFFIX and not path.is_dir()


def archives(pattern: Path) -> list[Path]:
    """The archives that a path with wildcards in its name means, sorted."""
    if pattern.exists() or not pattern.parent.is_dir():
        return [pattern] if pattern.exists() else []
    return sorted(path for path in pattern.parent.iterdir() if fnmatchcase(path.name, pattern.name))


def archive_members(archive: Path) -> dict[str, tuple[int, int]]:
    """Name -> (first byte, number of bytes) of every file in an archive; only its headers are read, once.

    Raises:
        DataError: it is not a complete, uncompressed tar archive, or has symbolic links.
    """
    try:
        status = archive.stat()
        return _members(archive, status.st_size, status.st_mtime_ns)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise DataError(f"{archive}: expected a complete tar archive without compression: {error}") from error


@cache  # without bound: one entry fewer than there are archives, and every read would look through one again
def _members(archive: Path, size: int, modified: int) -> dict[str, tuple[int, int]]:
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(archive, "r:") as content, archive.open("rb") as file:
        for part in content:
            name = _plain(part.name)
            if part.issym():
                raise tarfile.ReadError(f"{name} is a symbolic link; pack what it points to (tar --dereference)")
            if part.islnk():
                members[name] = members[_plain(part.linkname)]
            elif part.isfile():
                members[name] = part.offset_data, part.size
        # tarfile takes a damaged header for the end.
        file.seek(content.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut off or damaged after {len(members)} members")
    return members


def _plain(name: str) -> str:
    return name.lstrip("/").removeprefix("./")


def read_bytes(path: Path) -> bytes:
    """The content of a file or member.

    Raises:
        OSError: it is not there, or cannot be read.
        DataError: the archive is damaged.
    """
    with opened(path) as file:
        return file.read()


def opened(path: Path) -> BinaryIO:
    """A file or member to read from, as far as wanted.

    Raises:
        As :func:`read_bytes`.
    """
    place = _member(path)
    return path.open("rb") if place is None else cast(BinaryIO, io.BufferedReader(_Part(*place)))


class _Part(io.RawIOBase):
    """A stretch of a file as a file of its own."""

    def __init__(self, path: Path, first: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._first, self._size, self._position = first, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(min(len(buffer), self._size - self._position), 0)
        self._file.seek(self._first + self._position)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


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
    while end >= 0 and Path(text[: end + len(_SUFFIX)]).is_dir():
        end = text.find(_INSIDE, end + 1)
    if end < 0:
        return None
    archive, name = Path(text[: end + len(_SUFFIX)]), text[end + len(_INSIDE) :].replace(os.sep, "/")
    if not archive.exists():
        raise FileNotFoundError(2, "No such file or directory", text)
    place = archive_members(archive).get(name)
    if place is None:
        raise FileNotFoundError(2, "No such file in the archive", text)
    return archive, *place
