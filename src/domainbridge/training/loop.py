"""The one training loop: batch, losses, backward, step. Everything else is a value that it is given."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from domainbridge.adaptation.objective import Objective
from domainbridge.errors import TrainingError
from domainbridge.seeding import seed_global_generator, torch_generator
from domainbridge.training.loss_scale import LossScale
from domainbridge.training.optimiser import Schedule, set_rates
from domainbridge.training.processes import Processes
from domainbridge.training.runtime import Runtime
from domainbridge.types import Batch

__all__ = ["LossWindow", "Plan", "Progress", "fit"]


@dataclass(frozen=True)
class Plan:
    """How far and how to train.

    Attributes:
        stage: its name, part of every seed.
        seed: the run's.
        start: first step to take.
        schedule: of the rates; its ``steps`` is the end.
        precision: of forward passes.
        log_every: steps per progress report.
        checkpoint_every: steps per checkpoint.
        accumulate: parts of the batch that go through the network one after the other.
    """

    stage: str
    seed: int
    start: int
    schedule: Schedule
    precision: str = "float32"
    log_every: int = 50
    checkpoint_every: int = 1000
    accumulate: int = 1


@dataclass(frozen=True)
class Progress:
    """What happened since the last report.

    Attributes:
        step: steps taken so far.
        losses: mean of each named loss over the window.
        learning_rate: of the backbone at the last step.
        seconds: wall-clock seconds per step in the window.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float


class LossWindow:
    """Running sums of the losses and the first non-finite step, on the device: read only when reporting."""

    def __init__(self, device: torch.device) -> None:
        self.bad_step = torch.full((), -1.0, device=device)
        self.found = torch.zeros((), device=device)
        self.reset()

    def reset(self) -> None:
        """Start a new window."""
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.began = time.perf_counter()

    def add(self, step: int, losses: dict[str, Tensor], total: Tensor) -> None:
        """Take in one step; ``total`` is not finite when a loss or a gradient of any process is not.

        From the first such step on, ``found`` stays 1 and keeps the optimiser still.
        """
        bad = ~torch.isfinite(total)
        self.bad_step = torch.where(bad & (self.found == 0), float(step), self.bad_step)
        self.found = torch.maximum(self.found, bad.float())
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=loss.device)) + loss
        self.count += 1

    def read(self, step: int, learning_rate: float, processes: Processes) -> tuple[Progress, int | None]:
        """The report over all processes, and the first bad step if there was one. The only wait for the device."""
        names = list(self.sums)
        *values, bad = processes.mean(torch.stack([*self.sums.values(), self.bad_step])).tolist()
        losses = {name: value / self.count for name, value in zip(names, values, strict=True)}
        seconds = (time.perf_counter() - self.began) / self.count
        return Progress(step, losses, learning_rate, seconds), int(bad) if bad >= 0 else None


def fit(
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[Batch],
    plan: Plan,
    runtime: Runtime,
    *,
    report: Callable[[Progress], None],
    checkpoint: Callable[[int], None],
    stop_requested: Callable[[], bool] = lambda: False,
    scale: LossScale | None = None,
) -> bool:
    """Train from ``plan.start`` to the schedule's end.

    Args:
        objective: gives the losses; its student is in training mode.
        optimiser: fused, so that it can be told on the device to stay still.
        batches: of steps ``plan.start``, ``plan.start + 1`` ...
        plan: see there.
        runtime: device and autocast.
        report: called every ``log_every`` steps, at checkpoints and at the end.
        checkpoint: called with the number of steps taken every ``checkpoint_every`` steps and at a stop.
        stop_requested: asked after every step.
        scale: of the losses, for precision float16; a step whose gradients overflow is left out.

    Returns:
        True when the end was reached, False after a requested stop.

    Raises:
        TrainingError: a loss was not finite. The optimiser did not move at that step or after it, and no
            checkpoint was written since.
    """
    assert (scale is None) == (plan.precision != "float16")
    end = plan.schedule.steps
    window = LossWindow(runtime.device)
    for step in range(plan.start, end):
        set_rates(optimiser, plan.schedule.factor(step))
        objective.before_step(step)
        optimiser.zero_grad(set_to_none=True)
        losses = _backward(objective, next(batches).on(runtime.device), plan, step, runtime, scale)
        gradients = [weight.grad for weight in objective.student.parameters() if weight.grad is not None]
        size = torch.stack(list(losses.values())).sum()
        runtime.processes.average([*gradients, size])
        if scale is not None:
            optimiser.grad_scale = scale.value  # type: ignore[attr-defined]
        optimiser.found_inf = _still(window, scale, step, losses, size, gradients)  # type: ignore[attr-defined]
        optimiser.step()

        done = step + 1
        stopping = done < end and runtime.processes.any(stop_requested())
        saving = stopping or done % plan.checkpoint_every == 0
        if saving or done % plan.log_every == 0 or done == end:
            progress, bad_step = window.read(done, optimiser.param_groups[0]["lr"], runtime.processes)
            if bad_step is not None:
                raise TrainingError(_not_finite(plan.stage, bad_step, losses))
            report(progress)
            window.reset()
            if saving:
                checkpoint(done)
        if stopping:
            return False
    return True


def _still(
    window: LossWindow,
    scale: LossScale | None,
    step: int,
    losses: dict[str, Tensor],
    size: Tensor,
    gradients: list[Tensor],
) -> Tensor:
    """Take in a step's losses, their sum ``size`` and its gradients; 1 where the optimiser must not move, else 0."""
    norm = torch.stack(torch._foreach_norm(gradients)).sum()
    if scale is None:
        window.add(step, losses, size + norm)
        return window.found
    window.add(step, losses, scale.checked(size))
    return torch.maximum(window.found, scale.update(norm))


def _backward(
    objective: Objective, batch: Batch, plan: Plan, step: int, runtime: Runtime, scale: LossScale | None
) -> dict[str, Tensor]:
    """Go backward from each loss of each part of the batch as it comes; the losses, averaged over the parts."""
    means: dict[str, Tensor] = {}
    for number, part in enumerate(batch.parts(plan.accumulate)):
        for name, loss in _losses(objective, part, plan, step, number, runtime):
            share = loss / plan.accumulate
            scaled = share if scale is None else share * scale.value
            scaled.backward()  # type: ignore[no-untyped-call]
            means[name] = means.get(name, 0) + share.detach()
    return means


def _losses(
    objective: Objective, batch: Batch, plan: Plan, step: int, part: int, runtime: Runtime
) -> Iterator[tuple[str, Tensor]]:
    """The objective's losses, every draw a function of (seed, stage, step); each part drops other channels."""
    place = runtime.processes.rank * plan.accumulate + part
    seed_global_generator(plan.seed, plan.stage, step, f"dropout {place}" if place else "dropout")
    named = objective.losses(batch, torch_generator(plan.seed, plan.stage, step, "objective"))
    while True:
        with runtime.autocast(plan.precision):  # of forward passes only: the caller goes backward in between
            item = next(named, None)
        if item is None:
            return
        yield item


def _not_finite(stage: str, step: int, losses: dict[str, Tensor]) -> str:
    return (
        f"stage {stage}, step {step}: the loss ({' + '.join(losses)}) or its gradient is not finite; training stopped "
        "before the optimiser moved, and the last checkpoint is kept. Lower learning_rate or raise warmup_steps "
        f"(training.* or stages.{stage}.*); with precision float16, try bfloat16 or float32"
    )
