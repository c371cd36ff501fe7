"""The state of a half-done stage: everything that the next step depends on, written atomically.

A checkpoint is a torch file, which is a zip archive. The archive's comment holds the SHA-256 of all bytes before it:
the checksum is in the same file, and any zip reader still opens it. torch does not look at the archive's own CRCs.
"""

import hashlib
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from domainbridge.errors import RunFolderError
from domainbridge.files import write_file

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_RESTART = "restore it from a copy, or delete it to start the stage again"
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64
"""Bytes of the archive's comment."""
_END = struct.Struct("<4s4H2LH")
"""The record that ends a zip archive; its last field is the length of the comment."""
_END_SIGNATURE = b"PK\x05\x06"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """Where a stage stands.

    Attributes:
        step: the next step to take.
        fingerprint: of the stage that wrote it; another stage must not resume from it.
        student: its state dict.
        objective: the objective's own state, e.g. the teacher.
        optimizer: its state dict.
        seconds: spent so far.
        scale: of the losses, with precision float16.
        early_stopping: scores and best weights so far, with ``training.early_stopping``.
    """

    step: int
    fingerprint: str
    student: dict[str, Any]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    seconds: float
    scale: dict[str, Any] = field(default_factory=dict)
    early_stopping: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at ``path``; after a crash the old one is still there.

    Raises:
        StorageError: it cannot be written.
    """

    def save(temporary: Path) -> None:
        torch.save(vars(checkpoint), temporary)
        _add_checksum(temporary)

    write_file(path, save)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, its tensors on the CPU; no code is executed.

    Raises:
        RunFolderError: the file is not a checkpoint, or any bit of it has changed since it was written.
    """
    _check_checksum(path)
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, MemoryError):  # says nothing about the file, which must not be thrown away for it
        raise
    except Exception as error:  # a file that is no checkpoint makes the unpickler fail in any way, KeyError included
        raise RunFolderError(f"{path}: not a checkpoint ({error}); {_RESTART}") from error
    numbers = type(checkpoint.step) is int and checkpoint.step >= 0 and isinstance(checkpoint.seconds, float | int)
    tables = (
        checkpoint.student,
        checkpoint.objective,
        checkpoint.optimizer,
        checkpoint.scale,
        checkpoint.early_stopping,
    )
    if not numbers or not all(isinstance(table, dict) for table in tables):
        raise RunFolderError(f"{path}: not a checkpoint (step {checkpoint.step!r}); {_RESTART}")
    return checkpoint


def _add_checksum(path: Path) -> None:
    """Append the checksum as the comment of a zip archive that has none."""
    with path.open("rb+") as file:
        file.seek(-_END.size, os.SEEK_END)
        assert file.read(4) == _END_SIGNATURE, "torch writes zip archives without a comment"
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _COMMENT))
        file.seek(0)
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_MARK + checksum.encode())


def _check_checksum(path: Path) -> None:
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _COMMENT
        file.seek(0)
        left = size
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            hasher.update(block)
            left -= len(block)
        comment = file.read()
    if size <= 0 or not comment.startswith(_MARK):
        raise RunFolderError(
            f"{path}: not a checkpoint with a checksum: damaged, cut off, or of an older version; {_RESTART}"
        )
    if comment[len(_MARK) :] != hasher.hexdigest().encode():
        raise RunFolderError(f"{path}: damaged: the content does not have the checksum it was written with; {_RESTART}")
