"""Joining the processes that torchrun starts, one device each.

A process that fails ends; the collectives of the others then fail too, and torchrun shows the first failure (its
``record`` writes the file for it).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.elastic.multiprocessing.errors import record
from torch.distributed.rendezvous import rendezvous

from domainbridge.errors import RecipeError, TrainingError
from domainbridge.runtime.distributed import DEVICE_PATIENCE, PATIENCE, Processes

__all__ = ["is_main_process", "joined_processes", "local_count", "local_rank", "process_device", "recorded"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _peer_is_gone(error: RuntimeError) -> bool:
    """Whether a collective failed, as it does in every process when one of them has ended."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL"))


def recorded(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function; below torchrun its failure is written, so that torchrun shows the first one of all processes."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return function
    return cast(Callable[Parameters, Result], record(function))


def is_main_process() -> bool:
    """Whether this is the main process, before the processes are joined."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """Which of its machine's processes this is, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_count() -> int:
    """How many training processes this machine has, as torchrun says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def process_device(device: str) -> str:
    """The device of this process where several share the work: each of a machine's processes takes its own GPU."""
    shared = local_count() > 1 and torch.cuda.is_available() and device in ("auto", "cuda")
    return f"cuda:{local_rank()}" if shared else device


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, joined for the block; without torchrun a single process.

    Args:
        device: the recipe's: auto, cpu or cuda; each process of a machine takes a GPU of its own.

    Raises:
        RecipeError: one GPU is asked for by number, or a machine has fewer GPUs than processes.
        TrainingError: the processes do not find each other, or one of them failed.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    backend = _backend(device)
    try:
        _meet(backend)
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"WORLD_SIZE is {count}, but the processes do not meet: {error}; use torchrun") from error
    assert isinstance(control, dist.ProcessGroup)
    try:
        yield Processes(dist.get_rank(), count, control)
    except BaseException as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, on its way; the reason is told first
        if backend == "gloo":  # taking an NCCL group down can wait for processes that never come
            dist.destroy_process_group()
        if isinstance(error, RuntimeError) and _peer_is_gone(error):
            raise TrainingError(
                "another process failed; torchrun names the first failure below. The last checkpoint is kept: the same "
                "command goes on from it"
            ) from error
        raise
    dist.destroy_process_group()


def _meet(backend: str) -> None:
    """Join the processes of this attempt.

    After a restart (``torchrun --max-restarts``) torchrun's store still holds the addresses of the ended processes; a
    process that reads one of them before it is replaced would wait for a closed port.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, count = next(rendezvous("env://"))
    store = PrefixStore(f"attempt-{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=DEVICE_PATIENCE)


def _backend(device: str) -> str:
    """NCCL for GPUs, gloo for CPUs."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "gloo"
    if device not in ("auto", "cuda"):
        raise RecipeError(f"runtime.device: {device!r} is one device, but torchrun started several processes; use cuda")
    if local_rank() >= torch.cuda.device_count():
        raise RecipeError(
            f"runtime.device: {torch.cuda.device_count()} GPUs here for at least {local_rank() + 1} processes; lower "
            "--nproc-per-node"
        )
    torch.cuda.set_device(local_rank())
    return "nccl"
