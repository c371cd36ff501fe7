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
_LARGE = 2**22
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
        self._library = _glibc() if _STATISTICS.exists() else None
        self._least = 0 if self._library is None else _resident()
        self.kept = self._set(_ONE_GIB)

    def before(self, size: object, *, large: bool = False) -> None:
        """Keep from now on; give memory back if the work has another size than the last one, and much is kept.

        Args:
            size: of the work.
            large: keep from the second work of this size on: one alone gains nothing, and holes in what is kept cost
                some hundreds of megabytes.
        """
        again, self._size = size == self._size, size
        if self.kept and self._library is not None and not again and _resident() > self._least + _MUCH:
            self._library.malloc_trim(0)
            self._least = _resident()
        if large and not again:
            self._set(_LARGE)
            self.kept = False
        elif not self.kept:
            self.kept = self._set(_ONE_GIB)

    def pause(self) -> None:
        """Give memory back, and large arrays at once until :meth:`before` is called again.

        For work that is mixed with that of other libraries, whose small pieces of memory would split what is kept.
        """
        if self._library is not None:
            self._set(_LARGE)
            self._library.malloc_trim(0)
        self.kept = False

    def _set(self, size: int) -> bool:
        """Arrays up to a size come from memory that is kept."""
        options = (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
        return self._library is not None and all(self._library.mallopt(option, size) == 1 for option in options)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(_STATISTICS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim and library.gnu_get_libc_version else None
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return None
