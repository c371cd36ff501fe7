"""Tar archives: reading files and archive members alike, and packing a domain into archives.

A path ARCHIVE.tar/MEMBER is the path of a member. A data set in a few large archives is therefore read like a data set
in a million small files, which object stores serve badly. Members are read at their place in the archive, in any order;
nothing is unpacked.

Written archives ("shards") follow WebDataset's convention: the files of a sample share one key, the part of the name
before its first dot: ``00000007.image.jpg`` and ``00000007.label.png``.
"""

import io
import os
import stat
import tarfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import cv2

from domainbridge.data.storage.virtual import annotation_file, is_set_path, real_files, virtual_bytes
from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError
from domainbridge.files import write_file

if TYPE_CHECKING:  # a data set reads its files through this module
    from domainbridge.data.dataset import FileDataset

__all__ = [
    "IMAGE_PATTERN",
    "LABEL_PATTERN",
    "archive_members",
    "archives",
    "is_archives",
    "open_path",
    "read_bytes",
    "shard_pattern",
    "shards_of",
    "size_and_mtime",
    "write_shards",
]

IMAGE_PATTERN, LABEL_PATTERN = "{stem}.image", "{stem}.label"
"""Patterns of a recipe that reads the output of :func:`write_shards`."""

_SUFFIX = ".tar"
_INSIDE = f"{_SUFFIX}{os.sep}"
_DIGITS = 6
_Members = list[tuple[str, bytes]]


def is_archives(path: Path) -> bool:
    """Whether the path names archives, perhaps with wildcards in the file name, and not a folder."""
    return path.suffix == _SUFFIX and not path.is_dir()


def archives(pattern: Path) -> list[Path]:
    """Archives that match a path with wildcards in the file name, sorted."""
    if pattern.exists() or not pattern.parent.is_dir():
        return [pattern] if pattern.exists() else []
    return sorted(path for path in pattern.parent.iterdir() if fnmatchcase(path.name, pattern.name))


def archive_members(archive: Path) -> dict[str, tuple[int, int]]:
    """Name -> (first byte, number of bytes) of every file in an archive; only headers are read, once per process.

    Raises:
        DataError: the file is not a complete, uncompressed tar archive, or contains symbolic links.
    """
    try:
        status = archive.stat()
    except OSError as error:
        raise _unreadable(str(archive), error) from error
    return _listed(str(archive), status)


def _listed(archive: str, status: os.stat_result) -> dict[str, tuple[int, int]]:
    """As :func:`archive_members`, for an archive whose state is known: a member's look-up has one system call."""
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{archive}: expected a tar archive, found a pipe, a device or a folder of this name")
    try:
        return _members(Path(archive), status.st_size, status.st_mtime_ns)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise _unreadable(archive, error) from error


def _unreadable(archive: str, error: Exception) -> DataError:
    return DataError(f"{archive}: expected a complete tar archive without compression: {error}")


@cache  # unbounded: a cache with fewer entries than archives could scan an archive at every read
def _members(archive: Path, size: int, modified: int) -> dict[str, tuple[int, int]]:
    members: dict[str, tuple[int, int]] = {}
    with tarfile.open(archive, "r:") as content, archive.open("rb") as file:
        for part in content:
            name = _relative(part.name)
            if part.issym():
                raise tarfile.ReadError(f"{name} is a symbolic link; pack the linked file (tar --dereference)")
            if part.islnk():
                members[name] = members[_relative(part.linkname)]
            elif part.isfile():
                members[name] = part.offset_data, part.size
        # tarfile takes a damaged header for the end of the archive.
        file.seek(content.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut off or damaged after {len(members)} members")
    return members


def _relative(name: str) -> str:
    return name.lstrip("/").removeprefix("./")


def read_bytes(path: Path) -> bytes:
    """Content of a file or member; of a virtual path, bytes that change with its content (``storage/virtual.py``).

    Raises:
        OSError: the file does not exist, or cannot be read.
        DataError: the archive is damaged.
    """
    try:
        with open_path(path) as file:
            return file.read()
    except OSError:
        content = virtual_bytes(path, read_bytes)
        if content is None:
            raise
        return content


def open_path(path: Path) -> BinaryIO:
    """A file or member, open for reading; for a set path (``storage/virtual.py``), its files one after the other.

    Raises:
        As :func:`read_bytes`.
    """
    if is_set_path(str(path)):
        return io.BytesIO(virtual_bytes(path, read_bytes) or b"")
    member = _member(str(path))
    if member is None:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(FileSlice(Path(member.archive), member.first, member.length)))


class FileSlice(io.RawIOBase):
    """A range of a file's bytes as a file of its own."""

    def __init__(self, path: Path, first: int, length: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._first, self._length, self._position = first, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = max(min(len(buffer), self._length - self._position), 0)
        self._file.seek(self._first + self._position)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def size_and_mtime(path: str) -> tuple[int, int]:
    """(size in bytes, modification time in ns); a member has the time of its archive.

    A virtual path has the values of its annotation file, or the sum of the sizes and the latest time of its files.

    Raises:
        As :func:`read_bytes`.
    """
    try:
        return _size_and_mtime(path)
    except OSError:
        if is_set_path(path):
            sizes, times = zip(*(_size_and_mtime(str(file)) for file in real_files(Path(path))), strict=True)
            return sum(sizes), max(times)
        file = annotation_file(Path(path))
        if file is None:
            raise
        return _size_and_mtime(str(file))


def _size_and_mtime(path: str) -> tuple[int, int]:
    member = _member(path)
    if member is None:
        status = os.stat(path)  # noqa: PTH116 - a Path per file takes as long again
        return status.st_size, status.st_mtime_ns
    return member.length, member.modified


class _Member(NamedTuple):
    archive: str
    first: int
    length: int
    modified: int


def _member(text: str) -> _Member | None:
    """Archive, first byte, length and time of a member; None for a file outside archives.

    A loop over the members of a large archive comes here for each of them: no Path, one system call.
    """
    end = text.find(_INSIDE)
    while end >= 0:
        archive = text[: end + len(_SUFFIX)]
        try:
            status = os.stat(archive)  # noqa: PTH116
        except OSError:
            raise FileNotFoundError(2, "No such file or directory", text) from None
        if not stat.S_ISDIR(status.st_mode):
            name = text[end + len(_INSIDE) :].replace(os.sep, "/")
            position = _listed(archive, status).get(name)
            if position is None:
                raise FileNotFoundError(2, "No such file in the archive", text)
            return _Member(archive, *position, status.st_mtime_ns)
        end = text.find(_INSIDE, end + 1)
    return None


def shard_pattern(name: str) -> str:
    """Pattern of the shards with that name; a longer name with the same beginning does not match."""
    return f"{name}-{'[0-9]' * _DIGITS}.tar"


def shards_of(name: str, out: Path) -> list[Path]:
    """Existing shards with that name."""
    return sorted(out.glob(shard_pattern(name)))


def write_shards(
    dataset: "FileDataset", name: str, out: Path, shard_bytes: int, progress: Callable[[int], None]
) -> int:
    """Pack a domain: image files unchanged, labels as PNGs of train ids (255: ignored).

    Each shard is written atomically.

    Args:
        dataset: the domain.
        name: shards are named ``NAME-000000.tar`` and so on.
        out: folder; created if missing.
        shard_bytes: a new shard begins after this number of bytes.
        progress: called with the number of samples packed so far.

    Returns:
        The number of shards.

    Raises:
        DataError: a file cannot be read, or a label does not fit its label space.
        StorageError: a shard cannot be written.
    """
    shard, members, held = 0, _Members(), 0
    for done, packed in enumerate(in_threads(lambda index: _packed(dataset, index), range(len(dataset))), 1):
        members += packed
        held += sum(len(content) for _, content in packed)
        if held >= shard_bytes or done == len(dataset):
            _write(out / f"{name}-{shard:0{_DIGITS}}.tar", members)
            shard, members, held = shard + 1, _Members(), 0
        progress(done)
    return shard


def _packed(dataset: "FileDataset", index: int) -> _Members:
    image = dataset.images[index]
    try:
        members = [(f"{index:08}.image{image.suffix.lower()}", read_bytes(image))]
    except OSError as error:
        raise DataError(f"{image}: cannot be read: {error.strerror}") from error
    if dataset.labels is not None and dataset.decoder is not None:
        success, coded = cv2.imencode(".png", dataset.decoder.read(dataset.labels[index]))
        assert success
        members.append((f"{index:08}.label.png", coded.tobytes()))
    return members


def _write(path: Path, members: _Members) -> None:
    def save(temporary: Path) -> None:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w") as archive:
            for name, content in members:
                header = tarfile.TarInfo(name)  # without times and owners: equal files give equal bytes
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))

    write_file(path, save)
