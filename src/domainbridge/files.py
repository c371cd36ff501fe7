"""Atomic writes: a file is there whole or not at all, also after a crash in the middle."""

import os
from pathlib import Path

__all__ = ["replace_file", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text through a temporary file beside ``path``."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    replace_file(temporary, path)


def replace_file(temporary: Path, path: Path) -> None:
    """Flush ``temporary`` to the disk, then move it over ``path``."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
