"""Atomic writes: a file is there whole or not at all, also after a crash in the middle or on a full disk; JSON."""

import hashlib
import json
import os
import shutil
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from safetensors import SafetensorError

from domainbridge.errors import StorageError

__all__ = [
    "ARRAYS_DAMAGED",
    "LOADER_ENDED",
    "digest",
    "digest_bytes",
    "file_checksum",
    "read_json",
    "remove_temporaries",
    "replace_file",
    "write_arrays",
    "write_file",
    "write_text",
]

ARRAYS_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile, zlib.error, RuntimeError),
)
"""What NumPy raises on a missing or damaged file of arrays: a zip archive, whose CRC-32 is checked when it is read."""
_NEARLY_NOTHING = 2**20
"""Bytes: what a full disk still has free beside a file that did not fit."""
LOADER_ENDED = "DataLoader worker"
"""Part of torch's message about a killed loader process; a signal handler raises it anywhere in the main thread."""


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text through a temporary file beside ``path``.

    Raises:
        StorageError: as for :func:`write_file`.
    """
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a temporary file beside ``path``, then move it there.

    The temporary's name is unique, so several processes and threads may write the same ``path`` at once. The temporary
    is removed whatever happens, also on an interrupt.

    Raises:
        StorageError: it cannot be written; ``path`` is as it was, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        save(temporary)
        replace_file(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' words for a full disk
        if LOADER_ENDED in str(error):
            raise
        raise StorageError(
            f"{path}: cannot be written ({_reason(error, path)}); what was there before is kept. Make room or "
            "give the right to write, then start the same command again"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _reason(error: Exception, path: Path) -> str:
    """Why a file cannot be written; the libraries tell a full disk by positions in a file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    full = path.parent.is_dir() and shutil.disk_usage(path.parent).free < _NEARLY_NOTHING
    return "no space left on the disk" if full else str(error)


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write NumPy arrays by name as one compressed file; ``ARRAYS_DAMAGED`` are the errors of reading a damaged one.

    Raises:
        StorageError: as for :func:`write_file`.
    """
    import numpy as np  # late: the command line shows its help without

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # given a name, NumPy would add a suffix to it
            np.savez_compressed(file, **arrays)

    write_file(path, save)


def replace_file(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to the disk, then move it over ``path``."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes left in ``folder`` and below; nobody may be writing there."""
    for path in folder.rglob(".*.[0-9]*.[0-9]*.tmp"):
        path.unlink(missing_ok=True)


def digest(content: Any) -> str:
    """Short hash of plain values, independent of the order of keys."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def digest_bytes(*parts: bytes) -> str:
    """Short hash of some contents in an order, 24 hexadecimal digits."""
    return hashlib.blake2b(b"|".join(parts), digest_size=12).hexdigest()


def file_checksum(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; 0.1 s for 180 MB.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a JSON file; None when it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # ValueError: no JSON, or no text at all
        return None
    return content if isinstance(content, dict) else None
