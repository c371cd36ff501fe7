"""One process at a time in a run folder, or in a stage: a lock that ends with its process, also without ``fcntl``."""

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from domainbridge.errors import RunFolderError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderLock", "is_lock_file"]

_FLOCK, _PID = ".lock", ".lock.pid"
_RESULTS = ".lock.results"
_PATIENCE = 30.0
"""Seconds in which another process that starts a stage looks at the folder and moves what is in its way."""
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_QUERY = 0x1000
"""Windows' right to ask about a process."""


class FolderLock:
    """The lock of a run folder, for a ``with`` block; a folder that takes its place can be locked beside it.

    With ``flock`` the system drops the lock when the process ends, however it ends. Elsewhere a file holds the number
    of the process, and a file of a process that has ended counts for nothing.

    With ``stage`` (``run --only``), other processes may run other stages in the folder, after :meth:`share`. They need
    ``flock``.

    Attributes:
        alone: whether no other process is in the folder. A process that is not alone must move and remove nothing.
    """

    def __init__(self, folder: Path, announce: Callable[[str], None], stage: str | None = None) -> None:
        self.folder, self.announce, self.stage = folder, announce, stage
        self.held: dict[Path, IO[str] | None] = {}
        self.alone = True

    def __enter__(self) -> "FolderLock":
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.take(self.folder)
                return self
            except RunFolderError:
                if self.stage is None or fcntl is None:
                    raise
            file = (self.folder / _FLOCK).open("a", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                file.close()
                if time.monotonic() > deadline:
                    raise _busy(self.folder) from error
                time.sleep(0.2)
                continue
            self.held[self.folder] = file
            try:
                self.share()
            except RunFolderError:
                file.close()
                raise
            return self

    def share(self) -> None:
        """Lock the stage, and let processes that run other stages in; to be called when the folder is arranged.

        Raises:
            RunFolderError: another process runs the same stage.
        """
        if self.stage is None or fcntl is None or not self.alone:
            return
        path = self.folder / f"{_FLOCK}.{self.stage}"
        self.held[path] = self._lock_file(path, f"stage {self.stage} of {self.folder}")
        with suppress(OSError):  # a disk without locks
            fcntl.flock(self.held[self.folder] or -1, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self.alone = False

    @contextmanager
    def writing_results(self) -> Iterator[None]:
        """For reading all stages' results and writing them to one file; other processes wait."""
        if self.stage is None or fcntl is None:
            yield
            return
        with (self.folder / _RESULTS).open("a", encoding="utf-8") as file:
            with suppress(OSError):  # a disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder, file in self.held.items():
            if file is not None:
                file.close()
            else:
                with suppress(OSError):
                    (folder / _PID).unlink(missing_ok=True)
        self.held.clear()

    def take(self, folder: Path) -> None:
        """Lock a folder as well.

        Raises:
            RunFolderError: another process has it.
            StorageError: the folder cannot be written.
        """
        try:
            self.held[folder] = (
                self._lock_file(folder / _FLOCK, str(folder)) if fcntl is not None else _write_pid(folder)
            )
        except OSError as error:
            raise StorageError(
                f"{folder / _FLOCK}: cannot be written ({error.strerror}); give the right to write, or use --out"
            ) from error

    def moved(self, old: Path, new: Path) -> None:
        """Follow a locked folder to its new place."""
        self.held[new] = self.held.pop(old)

    def _lock_file(self, path: Path, what: str) -> IO[str]:
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                self.announce(
                    f"note: {path}: this disk has no locks ({error.strerror}); see that no other run uses {what}"
                )
                return file
            file.close()
            if error.errno in _BUSY:
                raise _busy(what) from None
            raise
        # Another run may have moved the folder between opening and locking.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.close()
            raise _busy(what)
        return file


def is_lock_file(name: str) -> bool:
    """Whether a file of that name in a run folder belongs to a lock."""
    return name == _FLOCK or name.startswith(f"{_FLOCK}.")


def _busy(folder: Path | str, hint: str = "") -> RunFolderError:
    return RunFolderError(f"{folder}: another process is running in it; wait for it, or use --out{hint}")


def _write_pid(folder: Path) -> None:
    """Make the file that holds this process's number; a file of an ended process is taken away first."""
    path = folder / _PID
    for attempt in range(2):
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
            return
        except FileExistsError:
            if attempt or not _left_over(path):
                raise _busy(folder, f". If no run is, delete {path}") from None
            path.unlink(missing_ok=True)


def _left_over(path: Path) -> bool:
    """Whether the process that wrote the file has ended; another machine's processes are not known."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(owner["pid"]), owner["host"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(host == socket.gethostname()) and not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, os.kill would end the process
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(_QUERY, False, pid)  # type: ignore[attr-defined]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined]
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
