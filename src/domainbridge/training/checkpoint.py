"""The state of a half-done stage: everything that the next step depends on, written atomically."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from domainbridge.errors import RunFolderError
from domainbridge.files import write_file

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]


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
    """

    step: int
    fingerprint: str
    student: dict[str, Any]
    objective: dict[str, Any]
    optimizer: dict[str, Any]
    seconds: float
    scale: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at ``path``; after a crash the old one is still there.

    Raises:
        StorageError: it cannot be written.
    """
    write_file(path, lambda temporary: torch.save(vars(checkpoint), temporary))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, its tensors on the CPU; no code is executed.

    Raises:
        RunFolderError: the file is not a checkpoint.
    """
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, MemoryError):  # says nothing about the file, which must not be thrown away for it
        raise
    except Exception as error:  # a file that is no checkpoint makes the unpickler fail in any way, KeyError included
        raise RunFolderError(f"{path}: not a checkpoint ({error}); delete it to start the stage again") from error
