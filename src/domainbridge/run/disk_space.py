"""Room on the disk: what the open stages of a run will write, and whether it is there, before the first step."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from domainbridge.methods.base import PrototypeStage
from domainbridge.run.graph import PlannedStage
from domainbridge.run.stage_files import CHECKPOINT
from domainbridge.tools.stage_loads import StageLoad

__all__ = ["disk_notes", "disk_text", "written_bytes"]

_FLOAT32 = 4


def written_bytes(
    planned: Sequence[PlannedStage], loads: Sequence[StageLoad], folder: Path, stages_at_once: int = 1
) -> int:
    """Bytes that a run adds to its folder at the worst moment.

    These are the models of all open stages, the copy of the last one, and the largest checkpoint twice: a new one is
    whole before the old one goes. Event files and pictures are small beside them.

    Args:
        planned: stages of this start.
        loads: of the training stages among them, those that are done may be left out.
        folder: of the run; checkpoints of half-done stages are there already.
        stages_at_once: how many stages train at the same time.
    """
    todo = [item for item in planned if item.open]
    costs = {load.stage.name: load for load in loads}
    checkpoints = [costs[item.name].checkpoint for item in todo if item.name in costs]
    if not checkpoints:
        return 0
    largest = max(load.costs.parameters for load in loads)
    models = [
        costs[item.name].costs.parameters if item.name in costs else largest
        for item in todo
        if not isinstance(item.node.spec, PrototypeStage)
    ]
    there = sum(path.stat().st_size for item in todo if (path := folder / item.name / CHECKPOINT).is_file())
    return max(_FLOAT32 * (sum(models) + models[-1]) + 2 * stages_at_once * max(checkpoints) - there, 0)


def disk_text(needed: int, folder: Path) -> str:
    """The line of a plan: what is needed, of what, and what is free."""
    return (
        f"disk: {_size(needed)} more in {folder} at most (a model of each stage, the largest checkpoint twice "
        f"while it is replaced); {_size(_free(folder))} are free"
    )


def disk_notes(needed: int, folder: Path) -> list[str]:
    """What to say before the first step when the disk has less room than the run needs."""
    free = _free(folder)
    if needed <= free:
        return []
    return [
        f"{folder}: {_size(free)} are free on this disk, and the run needs about {_size(needed)}; make room, or take "
        "another folder with --out. A run that finds the disk full stops; the same command then goes on from its last "
        "checkpoint"
    ]


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
