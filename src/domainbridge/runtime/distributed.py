"""The processes that train one network together: their rows, what they agree on, whose gradients they share.

Every process takes its own rows of every batch. ``DistributedDataParallel`` averages the gradients while the last
backward pass of a step runs; only the main process writes. ``torchrun`` joins them (see there).
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from domainbridge.errors import RecipeError
from domainbridge.types import Rows

__all__ = ["DEVICE_PATIENCE", "PATIENCE", "Agreement", "Processes", "averaging_gradients"]

PATIENCE = timedelta(hours=6)
"""How long processes wait for the main one, which looks at all files and counts classes."""
DEVICE_PATIENCE = timedelta(minutes=30)
"""How long a collective on the devices waits for the slowest process: longer than a loader may take for a batch
(``data/loaders.py``), so that the slow process can say why. NCCL's default is ten minutes.
"""
_PARAMETERS = inspect.signature(DistributedDataParallel.__init__).parameters
_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _PARAMETERS else "broadcast_buffers"  # since torch 2.14
_OWN_BUFFERS: dict[str, Any] = {_BUFFERS: False}

Decision = TypeVar("Decision")
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Processes:
    """The processes of a run. The default is a single process, for which nothing here costs anything.

    Attributes:
        rank: of this process.
        count: number of processes.
        control: gloo group for messages between the processes' CPUs; None for one process.
        group: for tensors on the devices; None: the default group, of all processes of the run.
        first: rank of the main process among all processes of the run.
    """

    rank: int = 0
    count: int = 1
    control: dist.ProcessGroup | None = None
    group: dist.ProcessGroup | None = None
    first: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def rows(self, batch_size: int, parts: int = 1) -> Rows:
        """This process's rows of a batch of ``batch_size`` over all processes, in ``parts`` equal parts.

        Raises:
            RecipeError: the batch cannot be shared evenly.
        """
        if batch_size % self.count:
            raise RecipeError(
                f"training.batch_size: {batch_size} rows for {self.count} processes; batch_size is the size of the "
                "batch over all processes, take a multiple"
            )
        share = batch_size // self.count
        if share % parts:
            raise RecipeError(
                f"training.gradient_accumulation_steps: {share} rows in each of {self.count} process(es) for {parts} "
                "parts; take a divisor of the rows"
            )
        return Rows(self.rank * share, share, batch_size)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the processes, as a new tensor."""
        if self.count == 1:
            return value
        return self.all_reduce_sum(value.clone()) / self.count

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(value, group=self.group)
        return value

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes one after the other; every process has the same number of rows."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous(), group=self.group)
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process; a message between CPUs, no device waits."""
        if self.count == 1:
            return flag
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.control)
        return bool(raised)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier(group=self.control)

    def broadcast(self, value: Decision) -> Decision:
        """The main process's value, for all: e.g. what a disk holds, which machines may see at different times."""
        if self.count == 1:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=self.first, group=self.control)
        return cast(Decision, values[0])

    def gather(self, value: Decision) -> list[Decision]:
        """Every process's value, in the main process; no values in the others. A message between CPUs."""
        if self.count == 1:
            return [value]
        values: list[Any] | None = [None] * self.count if self.is_main else None
        dist.gather_object(value, values, dst=self.first, group=self.control)
        return values or []

    def split(self, parts: int) -> "tuple[int, Processes]":
        """Neighboring processes as ``parts`` equal groups; called by all processes together.

        Returns:
            The number of this process's group, and the group, whose main process is its first one.
        """
        assert self.count % parts == 0
        size, groups = self.count // parts, []
        for first in range(0, self.count, size):
            ranks = list(range(first, first + size))
            devices = dist.new_group(ranks, timeout=DEVICE_PATIENCE)
            groups.append((devices, dist.new_group(ranks, timeout=PATIENCE, backend="gloo")))
        number = self.rank // size
        group, control = groups[number]
        assert isinstance(group, dist.ProcessGroup)
        assert isinstance(control, dist.ProcessGroup)
        return number, Processes(self.rank % size, size, control, group, number * size)

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process runs the block, then the others do: for files that one process writes and all read."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


class Agreement:
    """Whether a flag is up in any process, told one call later: the message travels while the next step runs.

    For a question in every step. All processes get the same answer at the same call; a single process gets its answer
    at once.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.asked: tuple[Tensor, dist.Work] | None = None

    def __call__(self, flag: bool) -> bool:
        """The answer to the call before; this call's flag is on its way."""
        if self.processes.count == 1:
            return flag
        answer = self.answer()
        raised = torch.tensor(int(flag))
        work = dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.processes.control, async_op=True)
        self.asked = raised, work
        return answer

    def answer(self) -> bool:
        """The answer that is on its way; to be taken before the processes do anything else together."""
        if self.asked is None:
            return False
        raised, work = self.asked
        work.wait()
        self.asked = None
        return bool(raised)


def averaging_gradients(student: Network, processes: Processes, device: torch.device) -> Network:
    """The student, wrapped so that its gradients are averaged over the processes; itself for one process.

    BatchNorm buffers are not broadcast: all processes have the same ones (see ``sync_batchnorm``).
    """
    if processes.count == 1:
        return student
    wrapped = DistributedDataParallel(
        student,
        process_group=processes.group,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **_OWN_BUFFERS,
    )
    return cast(Network, wrapped)
