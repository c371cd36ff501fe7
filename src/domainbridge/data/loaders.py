"""Items of a stream in order, prefetched by loader processes; what is said when such a process ends or hangs."""

import gc
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.utils.data

from domainbridge.errors import DataError, TrainingError
from domainbridge.files import LOADER_ENDED

__all__ = ["PREFETCH", "batches", "loaders_alive"]

PREFETCH = 4
"""Batches that each loader process holds ready."""
PATIENCE = 900.0
"""Seconds without a batch after which a loader is taken for hanging."""

T = TypeVar("T")


def batches(
    stream: torch.utils.data.Dataset[T],
    steps: range,
    *,
    num_workers: int,
    pin_memory: bool = False,
    patience: float = PATIENCE,
) -> Generator[T, None, None]:
    """Items ``steps`` of a stream in order, prefetched by ``num_workers`` processes (0: loaded on demand).

    Close the generator (``contextlib.closing``): that ends the processes.

    Raises:
        DataError: a file cannot be used.
        TrainingError: another program ended a loader process, or no batch came for ``patience`` seconds.
    """
    loader = torch.utils.data.DataLoader(
        stream,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH if num_workers else None,
        worker_init_fn=_quiet_worker if num_workers else None,
        timeout=patience if num_workers else 0,
    )
    if num_workers:
        gc.collect()  # not left to the loader processes, see below
    loaded = iter(loader)
    try:
        yield from loaded
    except DataError as error:
        # The error of a worker contains the worker's traceback; only the last line is for the user.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None
    except (RuntimeError, OSError, EOFError) as error:
        if "timed out after" in str(error):
            raise TrainingError(
                f"no batch came from the loader processes for {patience:.0f} s: a disk that hangs, or shared memory "
                "(/dev/shm) that is full. Look at the disk, lower runtime.num_workers, or give a container more with "
                "--shm-size=2g, then start the same command again"
            ) from error
        # A process that ends while it hands over a batch breaks the connection in one of several ways.
        if LOADER_ENDED in str(error) or any(not worker.is_alive() for worker in getattr(loaded, "_workers", ())):
            raise _loader_ended(error) from error
        raise
    finally:
        # Not left to the garbage collector: an error's traceback may keep the iterator until Python exits. Python then
        # ends the workers by a signal that they ignore, and waits for them.
        if num_workers:
            loaded._shutdown_workers()  # type: ignore[attr-defined]


@contextmanager
def loaders_alive() -> Iterator[None]:
    """Turn the end of a loader process into one message, wherever in the block torch's signal handler raises it.

    Raises:
        TrainingError: another program ended a loader process.
    """
    try:
        yield
    except RuntimeError as error:
        if LOADER_ENDED not in str(error):
            raise
        raise _loader_ended(error) from error


def _loader_ended(error: Exception) -> TrainingError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TrainingError(
        f"a loader process was ended from outside, in most cases because the machine is out of memory ({reason}); "
        "lower runtime.num_workers, or make reduced copies (cache.folder), then start the same command again"
    )


def _quiet_worker(_: int) -> None:
    import signal

    import cv2

    # What the training process left behind is not collected here: a session of onnxruntime would wait for threads that
    # a forked process does not have, without end.
    gc.freeze()

    # Terminals, torchrun and systemd signal the whole process group. The training process then finishes its step, saves
    # a checkpoint and ends its workers. Without workers the training process could not finish the step, so workers
    # ignore these signals. SIGKILL still ends a hanging worker.
    for request in (signal.SIGINT, signal.SIGTERM):
        signal.signal(request, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
