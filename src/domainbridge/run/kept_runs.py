"""A run whose configuration changed loses nothing: the old folder moves to NAME.1, the new one takes over what fits."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shutil import copy2, rmtree

from domainbridge.errors import RunFolderError
from domainbridge.files import write_file
from domainbridge.run.graph import PlannedStage, kept_runs
from domainbridge.run.image_records import PICTURES_FILE
from domainbridge.run.lock import FolderLock
from domainbridge.run.stage_files import copy_stage, sweep

__all__ = ["arrange", "describe_move", "recover"]

_SHARED = (
    "recipe.yaml",
    "environment.json",
    "data-check.json",
    "class-counts.npz",
    "oracle-class-counts.npz",
    PICTURES_FILE,
)
"""Files of a run folder that hold for the new one too, or are written again in any case."""


def describe_move(planned: Sequence[PlannedStage], folder: Path) -> str | None:
    """A line about results that make room, for the user; None if there are none.

    Args:
        planned: the stages of this start.
        folder: of the run.
    """
    replaced = [item for item in planned if item.status.replaces]
    if not replaced:
        return None
    first = replaced[0]
    more = f" and {len(replaced) - 1} more stages" if len(replaced) > 1 else ""
    return (
        f"results of another configuration are kept: {folder} is moved to {_next_place(folder)} "
        f"({first.name}{more}: {first.status.reason})"
    )


def recover(folder: Path) -> None:
    """Finish a move that a crash cut off between its two steps."""
    pending = _pending(folder)
    if not folder.exists() and pending.is_dir():
        with FolderLock(pending, lambda text: None) as lock:
            pending.rename(folder)
            lock.moved(pending, folder)


def arrange(
    planned: Sequence[PlannedStage],
    wanted: Sequence[PlannedStage],
    folder: Path,
    lock: FolderLock,
    announce: Callable[[str], None],
) -> None:
    """Make the folder fit the plan: move it away if results would be replaced, take over what kept runs hold.

    Args:
        planned: all stages.
        wanted: the stages of this start.
        folder: of the run; this process holds its lock.
        lock: that lock.
        announce: told what happens.

    Raises:
        RunFolderError: the folder cannot be moved; nothing was changed.
        StorageError: the disk is full; nothing was changed.
    """
    move = describe_move(wanted, folder)
    if move is not None:
        announce(move)
        _move(planned, folder, lock)
    else:
        for item in wanted:
            if item.status.origin is not None:
                copy_stage(item.status.origin / item.name, folder / item.name)
    for origin in dict.fromkeys(item.status.origin for item in wanted if item.status.origin is not None):
        names = [item.name for item in wanted if item.status.origin == origin]
        announce(f"taken over from {origin}: {', '.join(names)}")
    for item in planned:
        if item.status.action == "done":
            sweep(folder / item.name)


def _move(planned: Sequence[PlannedStage], folder: Path, lock: FolderLock) -> None:
    """Build the new folder beside the old one, then exchange them; a crash at any moment loses nothing."""
    pending, kept = _pending(folder), _next_place(folder)
    try:
        if pending.exists():  # of a crash before the exchange; all of it is in other folders too
            rmtree(pending)
        pending.mkdir()
        _fill(pending, planned, folder)
        lock.take(pending)
        folder.rename(kept)
    except OSError as error:
        raise RunFolderError(
            f"{folder}: cannot be moved to {kept} ({error.strerror}), where its results would be kept; use --out for "
            "the changed recipe, or give the right to write"
        ) from error
    lock.moved(folder, kept)
    pending.rename(folder)
    lock.moved(pending, folder)


def _fill(pending: Path, planned: Sequence[PlannedStage], folder: Path) -> None:
    """Copy what holds for the new run too."""
    for name in _SHARED:
        original = folder / name
        if original.is_file():
            write_file(pending / name, partial(copy2, original))
    for item in planned:
        if item.status.action != "run":
            copy_stage((item.status.origin or folder) / item.name, pending / item.name)


def _pending(folder: Path) -> Path:
    """Where the new folder is built."""
    place = folder.absolute()
    return place.with_name(f".{place.name}.new")


def _next_place(folder: Path) -> Path:
    """The next free name for a kept run."""
    place = folder if folder.name else folder.absolute()
    newest = [int(path.name.rpartition(".")[2]) for path in kept_runs(folder)[:1]]
    return place.with_name(f"{place.name}.{(newest or [0])[0] + 1}")
