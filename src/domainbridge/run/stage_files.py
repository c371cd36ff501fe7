"""The files of a stage's folder: which are ours, whether the results are whole, how they are copied and removed."""

import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from domainbridge.errors import InputError, RunFolderError
from domainbridge.files import write_file
from domainbridge.methods.base import PrototypeStage, StageSpec
from domainbridge.models.card_file import CARD, is_unedited
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS, verify_model
from domainbridge.run.image_records import COUNTS_FILE, TEST_COUNTS_FILE
from domainbridge.run.prototype_files import load_prototypes

__all__ = ["CHECKPOINT", "DONE", "STARTED", "clear_stage", "copy_stage", "damage", "sweep"]

DONE, STARTED, CHECKPOINT = "done.json", "started.json", "state.pt"
_OURS = (
    DONE,  # first: half a folder must not look finished
    "evaluation.json",
    COUNTS_FILE,
    TEST_COUNTS_FILE,
    "test-evaluation.json",
    "label_free.json",
    "early_stopping.json",
    "metrics*.jsonl",
    "*.safetensors",
    "events.out.tfevents.*",
    ".*.[0-9]*.[0-9]*.tmp",
    f"model/{WEIGHTS}",
    f"model/{DESCRIPTION}",
    "model/.*.[0-9]*.[0-9]*.tmp",
    CHECKPOINT,
    STARTED,
)
"""Patterns of the files that a run writes into a stage's folder."""
_REPLACED_WHOLE = {".safetensors", ".pt"}
"""Large files, which are replaced and never changed in place: two runs may share them on the disk."""


def damage(spec: StageSpec, folder: Path) -> str | None:
    """Why the results of a finished stage cannot be used; None if they are whole. Every byte of them is read.

    Args:
        spec: of the stage.
        folder: of the stage.
    """
    try:
        if isinstance(spec, PrototypeStage):
            for student in spec.students:
                load_prototypes(folder, student, torch.device("cpu"))
        else:
            verify_model(folder / "model")
    except InputError as error:
        return str(error)
    return None


def clear_stage(folder: Path) -> None:
    """Make a stage's folder ready for a beginning: our files in it are removed, other people's stay.

    Raises:
        RunFolderError: the folder's place is taken by a file.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: expected a folder for the stage, found a file; move it, or use --out")
    for pattern in _OURS:
        for path in list(folder.glob(pattern)):
            path.unlink(missing_ok=True)
    if is_unedited(folder / "model" / CARD):
        (folder / "model" / CARD).unlink()
    with suppress(OSError):  # not empty, or absent
        (folder / "model").rmdir()
    folder.mkdir(parents=True, exist_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left in a finished stage's folder."""
    for name in (CHECKPOINT, STARTED):
        (folder / name).unlink(missing_ok=True)


def copy_stage(source: Path, destination: Path) -> None:
    """Copy a stage's folder; the file that says done or started goes last. Large files are shared where possible.

    Raises:
        StorageError: the disk is full, or not writable.
    """
    clear_stage(destination)
    paths = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    marks = [path for path in paths if path.name in (DONE, STARTED) and path.parent == Path()]
    for path in [*(path for path in paths if path not in marks), *marks]:
        (destination / path).parent.mkdir(parents=True, exist_ok=True)
        original = source / path
        if path.suffix in _REPLACED_WHOLE and _link(original, destination / path):
            continue
        write_file(destination / path, partial(shutil.copy2, original))


def _link(original: Path, copy: Path) -> bool:
    try:
        os.link(original, copy)
    except OSError:  # another disk, or one without links
        return False
    return True
