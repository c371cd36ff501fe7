"""Freed memory of the C library: kept for the next work of the same size, given back before work of another size.

The C library gives the memory of large arrays back to the system with every array that is freed. The system then clears
each page again for the next array, which takes as long as a light network on a CPU takes to compute. Kept memory needs
no clearing. Work of one size fills the same places again; work of changing sizes would leave holes, and memory would
grow.
"""

import ctypes

__all__ = ["FreedMemory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of ``mallopt``'s options in glibc's ``malloc.h``."""
_ONE_GIB = 2**30


class FreedMemory:
    """Keeps freed memory of the whole process from now on, where the C library is glibc; elsewhere nothing happens.

    Attributes:
        kept: whether memory is kept.
    """

    def __init__(self) -> None:
        self._size: object = None
        self._library = _glibc()
        self.kept = self._library is not None and all(
            self._library.mallopt(option, _ONE_GIB) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)
        )

    def before(self, size: object) -> None:
        """Give memory back if the work that begins has another size than the last one."""
        if self.kept and self._library is not None and size != self._size:
            self._library.malloc_trim(0)
        self._size = size


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim and library.gnu_get_libc_version else None
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        return None
