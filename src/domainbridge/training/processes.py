"""Several processes that train one network together, one device each, as torchrun starts them.

Every process takes its own rows of every batch, gradients are averaged in one flat all-reduce before the optimiser
steps, and only the first process writes. The wrapper ``DistributedDataParallel`` is not used: objectives call the
student twice before one backward pass, and read its parameters for the moving average; averaging the gradients by hand
keeps the loop and the names of the weights the same for one process and for many.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from domainbridge.errors import RecipeError, TrainingError
from domainbridge.types import Rows

__all__ = ["Processes", "joined_processes", "local_rank"]

_FAILURE = "domainbridge/failure"
_PATIENCE = timedelta(hours=6)
"""How long processes wait for one that looks at all files or counts classes."""
_GLANCE = 5e-4
"""Seconds between two looks at whether a word has come."""
_LAST_WORDS = 3.0
"""Seconds that a failing process leaves the others to read its message, before torchrun sees it end and ends them."""

Decision = TypeVar("Decision")


@dataclass(frozen=True)
class Processes:
    """The processes of a run; the default is the only one, for which nothing here costs anything.

    Attributes:
        rank: of this process.
        count: of all processes.
        control: group for words between the processes' CPUs; None for one process.
        store: torch's key-value store, where a failing process leaves its message; None for one process.
    """

    rank: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None
    store: Any = None

    @property
    def leader(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def rows(self, batch_size: int, parts: int = 1) -> Rows:
        """This process's rows of a batch of ``batch_size`` over all processes, which go through it in ``parts``.

        Raises:
            RecipeError: the batch cannot be shared evenly.
        """
        if batch_size % self.count:
            raise RecipeError(
                f"training.batch_size: {batch_size} rows for {self.count} processes; it is the size of the batch over "
                "all of them, take a multiple"
            )
        own = batch_size // self.count
        if own % parts:
            raise RecipeError(
                f"training.accumulate: {own} rows in each of {self.count} process(es) for {parts} parts; take a "
                "divisor of the rows"
            )
        return Rows(self.rank * own, own, batch_size)

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; one collective for all of them."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
        with self._together():
            dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(tensors, [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)])

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.count > 1:
            value = value.clone()
            self.average([value])
        return value

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes."""
        if self.count > 1:
            with self._together():
                dist.all_reduce(value)
        return value

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes one after the other; each has as many."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with self._together():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; a word between CPUs, no device waits."""
        if self.count == 1:
            return flag
        raised = torch.tensor(int(flag))
        self._await(lambda: dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.control, async_op=True))
        return bool(raised)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self._await(lambda: dist.barrier(group=self.control, async_op=True))

    def agreed(self, value: Decision) -> Decision:
        """The leader's value, for all: what is read from a disk that machines may see at different times."""
        if self.count == 1:
            return value
        words: list[Any] = [value]
        self.wait()
        with self._together():
            dist.broadcast_object_list(words, src=0, group=self.control)
        decided: Decision = words[0]
        return decided

    @contextlib.contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader does what is inside, then the others do: for what one process writes and all read."""
        if not self.leader:
            self.wait()
        yield
        if self.leader:
            self.wait()

    def leave_message(self, error: Exception) -> None:
        """Tell the other processes why this one fails; the first message stays."""
        if self.store is not None:
            with contextlib.suppress(RuntimeError):
                self.store.compare_set(_FAILURE, "", f"process {self.rank}: {error}")

    def _await(self, begin: Callable[[], Any]) -> None:
        """Until a word between the processes has come, or one of them has left a message that it fails."""
        with self._together():
            work = begin()
            looked = time.monotonic()
            while not work.is_completed():
                time.sleep(_GLANCE)
                if time.monotonic() - looked > 1:
                    looked = time.monotonic()
                    if self._message() is not None:
                        raise RuntimeError
            work.wait()

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """A collective fails when another process is gone: then its message is ours."""
        try:
            yield
        except RuntimeError as error:
            raise TrainingError(f"another process failed. {self._message() or error}") from error

    def _message(self) -> str | None:
        with contextlib.suppress(RuntimeError):
            if self.store is not None and self.store.check([_FAILURE]):
                return str(self.store.get(_FAILURE), "utf-8")
        return None


def local_rank() -> int:
    """Which of its machine's processes this is, as torchrun says."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that torchrun started, joined for the time inside; without torchrun the only one.

    Args:
        device: the recipe's: auto, cpu or cuda; each process of a machine takes a GPU of its own.

    Raises:
        RecipeError: one GPU is asked for by number, or there are fewer GPUs than processes.
        TrainingError: the processes do not find each other.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    backend = _backend(device)
    try:
        store, rank, count = next(iter(rendezvous("env://")))
    except (ValueError, RuntimeError) as error:
        raise TrainingError(f"WORLD_SIZE is {count}, but the processes do not meet: {error}; use torchrun") from error
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=count)
    control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(control, dist.ProcessGroup)
    processes = Processes(rank, count, control, store)
    try:
        yield processes
    except Exception as error:
        processes.leave_message(error)
        if backend == "gloo":  # NCCL's group is left as it is: taking it down can wait for processes that never come
            dist.destroy_process_group()
            time.sleep(_LAST_WORDS)
        raise
    dist.destroy_process_group()


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
