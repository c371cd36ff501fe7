"""Freed memory of the C library: kept for the next work of the same size, given back before work of another size.

The C library gives the memory of large arrays back to the system with every array that is freed. The system then clears
each page again for the next array, which takes as long as a light network on a CPU takes to compute. Kept memory needs
no clearing. Work of one size fills the same places again; work of changing sizes would leave holes, and memory would
grow.
"""

import ctypes
import os
from pathlib import Path

__all__ = ["FreedMemory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of ``mallopt``'s options in glibc's ``malloc.h``."""
_ONE_GIB = 2**30
_STATISTICS = Path("/proc/self/statm")
_MUCH = 2**28
"""Bytes beyond what is in use; images of a few hundred pixels a side need no more, whatever their sizes."""


class FreedMemory:
    """Keeps freed memory of the whole process from now on, where the C library is glibc; elsewhere nothing happens.

    Attributes:
        kept: whether memory is kept.
    """

    def __init__(self) -> None:
        self._size: object = None
        self._library = _glibc()
        usable = self._library if _STATISTICS.exists() else None
        self.kept = usable is not None and all(
            usable.mallopt(option, _ONE_GIB) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
        )
        self._least = _resident() if self.kept else 0

    def before(self, size: object) -> None:
        """Give memory back if the work that begins has another size than the last one, and much is kept."""
        if size != self._size:
            self.give_back()
        self._size = size

    def give_back(self) -> None:
        """Give memory back if much is kept: even work of one size leaves small holes with time."""
        if self.kept and self._library is not None and _resident() > self._least + _MUCH:
            self._library.malloc_trim(0)
            self._least = _resident()


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(_STATISTICS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim and library.gnu_get_libc_version else None
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return None
