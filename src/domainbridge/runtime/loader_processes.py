"""How many loader processes a machine can have: cores, and the shared memory that their batches go through."""

import os
import shutil
from pathlib import Path

from domainbridge.data.loaders import PREFETCH

__all__ = ["SHARED_MEMORY", "automatic_workers", "fitting_workers"]

SHARED_MEMORY = Path("/dev/shm")
"""Where loader processes put their batches on Linux. Docker gives it 64 MB. A process waits for ever if it is full."""
_MOST, _MOST_BESIDE_A_CPU = 16, 2
_MARGIN = 1.25
"""Of the bytes counted: page sizes, and the batch in use."""


def automatic_workers(cores: int, *, gpu: bool) -> int:
    """``num_workers: auto``: as many as help. A process that has nothing to do waits, and costs memory only.

    Args:
        cores: that this training process may use.
        gpu: whether the network runs on one; on a CPU the network needs the cores.
    """
    return min(max(cores - 1, 1), _MOST) if gpu else min(cores - 1, _MOST_BESIDE_A_CPU)


def fitting_workers(
    asked: int, cores: int, batch_bytes: int, *, folder: Path = SHARED_MEMORY, free: int | None = None
) -> tuple[int, list[str]]:
    """The number of loader processes to start, and why there are fewer than asked for.

    Args:
        asked: the recipe's number.
        cores: that this process may use. More loaders than cores only take turns.
        batch_bytes: of the largest batch that this process loads.
        folder: of the shared memory.
        free: its free bytes; None: as the system says. Several training processes of one machine share them.
    """
    notes = []
    num_workers = min(asked, cores)
    if num_workers < asked:
        notes.append(
            f"runtime.num_workers: {asked}, but this process may use {cores} core(s): {num_workers} are started. On a "
            "cluster, ask for more cores: --cpus-per-task of srun (since Slurm 22.05 it does not follow that of sbatch)"
        )
    if free is None and folder.is_dir():
        free = shutil.disk_usage(folder).free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def needed(count: int) -> float:
        return _MARGIN * batch_bytes * (PREFETCH * count + 1)

    fitting = num_workers
    while free is not None and fitting and needed(fitting) > free:
        fitting -= 1
    if free is not None and fitting < num_workers:
        notes.append(
            f"{folder}: {free / 2**20:.0f} MiB are free, {num_workers} loader processes need "
            f"{needed(num_workers) / 2**20:.0f} MiB: {fitting} are started. A container gets more with "
            "--shm-size=2g or --ipc=host"
        )
    return fitting, notes
