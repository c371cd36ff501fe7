"""Atomic writes: a file is there whole or not at all, also after a crash in the middle or on a full disk."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError

from domainbridge.errors import StorageError

__all__ = ["replace_file", "write_file", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text through a temporary file beside ``path``.

    Raises:
        StorageError: as for :func:`write_file`.
    """
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_file(path: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` write a temporary file beside ``path``, then move it there.

    Raises:
        StorageError: it cannot be written; ``path`` is as it was, and nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save(temporary)
        replace_file(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' words for a full disk
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StorageError(
            f"{path}: cannot be written ({reason}); what was there before is kept. Make room or give the right to "
            "write, then start the same command again"
        ) from error


def replace_file(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to the disk, then move it over ``path``."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
