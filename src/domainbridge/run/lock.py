"""One process at a time in a run folder: a lock that ends with its process, also where ``fcntl`` is absent."""

import errno
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from domainbridge.errors import RunFolderError, StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK_FILES", "FolderLock"]

_FLOCK, _PID = ".lock", ".lock.pid"
LOCK_FILES = (_FLOCK, _PID)
"""Names of the files of a lock, for whoever looks at a folder's content."""
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_QUERY = 0x1000
"""Windows' right to ask about a process."""


class FolderLock:
    """The lock of a run folder, for a ``with`` block; a folder that takes its place can be locked beside it.

    With ``flock`` the system drops the lock when the process ends, however it ends. Elsewhere a file holds the number
    of the process, and a file of a process that has ended counts for nothing.
    """

    def __init__(self, folder: Path, announce: Callable[[str], None]) -> None:
        self.folder, self.announce = folder, announce
        self.held: dict[Path, IO[str] | None] = {}

    def __enter__(self) -> "FolderLock":
        self.take(self.folder)
        return self

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
            self.held[folder] = self._flock(folder) if fcntl is not None else _write_pid(folder)
        except OSError as error:
            raise StorageError(
                f"{folder / _FLOCK}: cannot be written ({error.strerror}); give the right to write, or use --out"
            ) from error

    def moved(self, old: Path, new: Path) -> None:
        """Follow a locked folder to its new place."""
        self.held[new] = self.held.pop(old)

    def _flock(self, folder: Path) -> IO[str]:
        path = folder / _FLOCK
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                self.announce(
                    f"note: {path}: this disk has no locks ({error.strerror}); see that no other run uses {folder}"
                )
                return file
            file.close()
            if error.errno in _BUSY:
                raise _busy(folder) from None
            raise
        # Another run may have moved the folder between opening and locking.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.close()
            raise _busy(folder)
        return file


def _busy(folder: Path, hint: str = "") -> RunFolderError:
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
