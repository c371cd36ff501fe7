"""Digests of file contents; a digest is kept in the user's cache folder while the file's state stays."""

import hashlib
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from domainbridge.data.storage.tar import open_path, size_and_mtime
from domainbridge.data.storage.virtual import is_set_path, real_files
from domainbridge.data.threads import in_threads
from domainbridge.data.user_cache import CHANGING_NS, DAY, KEPT_DAYS, cache_folder, read_cached, write_cached
from domainbridge.errors import DataError

__all__ = [
    "FileState",
    "common_folder",
    "file_digests",
    "file_states",
]

_EDGE = 4096
"""Bytes at each end of a file that count where not the whole content does. A PNG ends with a checksum of its pixels."""
_REFRESH_DAYS = 7
_AT_ONCE = 256
"""Files per task of a thread."""
_BLOCK = 1 << 20

_Entry = list[Any]
"""[size, mtime in ns, ctime in ns, inode, digest, day of the last use]"""


class FileState(NamedTuple):
    """What tells that a file may have changed.

    Attributes:
        size: of the file in bytes; of the member, for an archive's member.
        modified: modification time in ns; of the container, for a path inside one.
        changed: time of the last change of content, name or rights in ns, which no program can set back.
        inode: number of the file on its disk.
        container: the file that holds the content, for a path inside an archive or an annotation file; else "".
    """

    size: int
    modified: int
    changed: int
    inode: int
    container: str = ""


def common_folder(paths: Sequence[str]) -> str:
    """The folder that all paths share; "" without paths."""
    # In sorted order, the first and the last path share the folder that all paths share.
    return os.path.commonpath([os.path.dirname(path) for path in (min(paths), max(paths))]) if paths else ""  # noqa: PTH120


def file_states(name: str, paths: Sequence[str]) -> list[FileState]:
    """The state of each file, in order.

    Args:
        name: of the domain, for messages.
        paths: absolute; also of archive members, and ``ANNOTATIONS.json/IMAGE`` for an entry of an annotation file.

    Raises:
        DataError: a file is missing, cannot be read, or is a pipe or a device.
    """

    def states(first: int) -> list[FileState]:
        return [_state(name, path) for path in paths[first : first + _AT_ONCE]]

    return [state for part in in_threads(states, range(0, len(paths), _AT_ONCE)) for state in part]


def file_digests(name: str, paths: Sequence[str], states: Sequence[FileState], whole: Sequence[bool]) -> list[str]:
    """A digest of each file's content, in order: 32 hexadecimal digits.

    Args:
        name: of the domain, for messages.
        paths: absolute.
        states: of the files.
        whole: whether all of the file counts; else its size, its first and its last 4 KiB.

    Raises:
        DataError: a file cannot be read.
    """
    store = _Store(common_folder(paths))
    inside = {state.container for state in states if state.container and not _is_archive(state.container)}
    # A whole annotation file, which all of its images share.
    shared = {path: _kept_or_new(name, path, _state(name, path), True, store) for path in inside}

    def digests(first: int) -> list[str]:
        positions = range(first, min(first + _AT_ONCE, len(paths)))
        return [
            shared.get(states[i].container) or _kept_or_new(name, paths[i], states[i], whole[i], store)
            for i in positions
        ]

    result = [digest for part in in_threads(digests, range(0, len(paths), _AT_ONCE)) for digest in part]
    store.save()
    return result


def _is_archive(container: str) -> bool:
    return container.endswith(".tar")


def _state(name: str, path: str) -> FileState:
    if is_set_path(path):
        parts = [_state(name, str(file)) for file in real_files(Path(path))]
        size, inode = sum(part.size for part in parts), sum(part.inode for part in parts)
        return FileState(size, max(part.modified for part in parts), max(part.changed for part in parts), inode)
    try:
        try:
            status, container = os.stat(path), ""  # noqa: PTH116 - a Path per file takes as long again
        except (NotADirectoryError, FileNotFoundError):
            container = _container(path)
            if not container:
                raise
            status = os.stat(container)  # noqa: PTH116
        size = size_and_mtime(path)[0] if container and _is_archive(container) else status.st_size
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{name}: {path} is no regular file but a folder, a pipe or a device; remove it")
    return FileState(size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, container)


def _container(path: str) -> str:
    """The nearest folder of a path that is a file in truth; "" if there is none."""
    return next((str(parent) for parent in Path(path).parents if parent.is_file()), "")


def _kept_or_new(name: str, path: str, state: FileState, whole: bool, store: "_Store") -> str:
    whole = whole or state.size <= 2 * _EDGE
    key = path if whole else f"{path}\0ends"
    kept = store.find(key, state)
    if kept is not None:
        return kept
    now = time.time_ns()
    try:
        with open_path(Path(path)) if state.container or is_set_path(path) else open(path, "rb") as file:  # noqa: PTH123 - as above
            digest = _digest(file, state.size, whole)
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
    if now - state.changed > CHANGING_NS and abs(now - state.modified) > CHANGING_NS:
        store.add(key, state, digest)
    return digest


def _digest(file: BinaryIO, size: int, whole: bool) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    if whole:
        while block := file.read(_BLOCK):
            hasher.update(block)
    else:
        hasher.update(b"%d\0" % size + file.read(_EDGE))
        file.seek(size - _EDGE)
        hasher.update(file.read(_EDGE))
    return hasher.hexdigest()


class _Store:
    """Digests of the files below one folder, in one file of the cache; threads may add at the same time."""

    def __init__(self, folder: str) -> None:
        name = hashlib.blake2b(os.fsencode(folder), digest_size=16).hexdigest()
        self.path = cache_folder() / "digests" / f"{name}.json"
        self.today = int(time.time()) // DAY
        self.entries: dict[str, _Entry] = read_cached(self.path) or {}
        self.changed = False

    def find(self, key: str, state: FileState) -> str | None:
        """The kept digest of a file in that state."""
        entry = self.entries.get(key)
        if entry is None or tuple(entry[:4]) != state[:4]:
            return None
        if self.today - entry[5] >= _REFRESH_DAYS:
            entry[5], self.changed = self.today, True
        return str(entry[4])

    def add(self, key: str, state: FileState, digest: str) -> None:
        """Keep a digest."""
        self.entries[key] = [*state[:4], digest, self.today]
        self.changed = True

    def save(self) -> None:
        """Write what changed, without what nobody uses; a cache that cannot be written is none."""
        if not self.changed:
            return
        kept = {key: entry for key, entry in self.entries.items() if self.today - entry[5] < KEPT_DAYS}
        write_cached(self.path, kept)
