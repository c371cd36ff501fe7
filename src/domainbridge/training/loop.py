"""The training loop: batch, losses, backward, step. Everything else is a value that the loop is given."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from domainbridge.config.training import TrainingConfig
from domainbridge.errors import TrainingError
from domainbridge.methods.base import Objective, trained_objectives
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.distributed import Agreement, Processes
from domainbridge.seeding import seed_global_generator, torch_generator
from domainbridge.training.amp import LossScale
from domainbridge.training.optimizer import Schedule, set_rates
from domainbridge.types import Batch

__all__ = ["Look", "LossWindow", "Progress", "TrainConfig", "fit"]

_DEFAULTS = TrainingConfig()


@dataclass(frozen=True)
class TrainConfig:
    """How far and how to train one stage.

    Attributes:
        stage: its name, for messages.
        seed: the run's.
        start: first step to take.
        schedule: of the learning rates; its ``steps`` is the end.
        precision: of forward passes.
        log_every: steps per progress report.
        checkpoint_every: steps per checkpoint.
        gradient_accumulation_steps: parts of the batch that pass the network one after the other.
        stream: name of the random streams, part of every seed; default: ``stage``.
        clip_grad_norm: largest L2 norm of all gradients together; None: no clipping.
    """

    stage: str
    seed: int
    start: int
    schedule: Schedule
    precision: str = _DEFAULTS.precision
    log_every: int = _DEFAULTS.log_every
    checkpoint_every: int = _DEFAULTS.checkpoint_every
    gradient_accumulation_steps: int = _DEFAULTS.gradient_accumulation_steps
    stream: str | None = None
    clip_grad_norm: float | None = _DEFAULTS.clip_grad_norm


@dataclass(frozen=True)
class Progress:
    """What happened since the last report.

    Attributes:
        step: steps taken so far.
        losses: mean of each named loss over the window.
        learning_rate: of the backbone at the last step.
        seconds: wall-clock seconds per step in the window.
        metrics: mean of each of the objective's metrics over the window.
        data_share: share of the seconds that the loop waited for data; without loader processes that of loading.
    """

    step: int
    losses: dict[str, float]
    learning_rate: float
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    data_share: float = 0.0


@dataclass(frozen=True)
class Look:
    """What was seen of the student between two steps.

    Attributes:
        values: for the report of this step, beside the objective's metrics.
        enough: whether training ends here.
    """

    values: Mapping[str, float]
    enough: bool


class LossWindow:
    """Running sums of losses and metrics, and the first non-finite step, on the device: read only for a report."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.first_non_finite = torch.full((), -1.0, device=device)
        self.non_finite = torch.zeros((), device=device)
        self.reset()

    def reset(self) -> None:
        """Start a new window."""
        self.losses: dict[str, Tensor] = {}
        self.metrics: dict[str, Tensor] = {}
        self.count = 0
        self.waited = 0.0
        self.began = time.perf_counter()

    def next_of(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the wait for it is counted."""
        asked = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - asked
        return batch

    def apart(self, look: Callable[[int], Look | None], done: int) -> Look | None:
        """Look at the student; the seconds of the look are no part of the window."""
        asked = time.perf_counter()
        seen = look(done)
        self.began += time.perf_counter() - asked
        return seen

    def add(self, step: int, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor], check: Tensor) -> None:
        """Take in one step; ``check`` is not finite when a loss or a gradient of any process is not.

        From the first such step on, ``non_finite`` stays 1 and keeps the optimizer from moving.
        """
        now = ~torch.isfinite(check)
        self.first_non_finite = torch.where(now & (self.non_finite == 0), float(step), self.first_non_finite)
        self.non_finite = torch.maximum(self.non_finite, now.float())
        for sums, values in ((self.losses, losses), (self.metrics, metrics)):
            for name, value in values.items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value
        self.count += 1

    def read(self, step: int, learning_rate: float, processes: Processes) -> tuple[Progress, int | None]:
        """The report over all processes, and the first non-finite step, if any. The only wait for the device."""
        sums = torch.stack([*self.losses.values(), *self.metrics.values(), self.first_non_finite])
        *means, first = processes.mean(sums).tolist()
        values = dict(zip([*self.losses, *self.metrics], (mean / self.count for mean in means), strict=True))
        seconds = time.perf_counter() - self.began
        progress = Progress(
            step,
            {name: values[name] for name in self.losses},
            learning_rate,
            seconds / self.count,
            {name: values[name] for name in self.metrics},
            self.waited / seconds,
        )
        return progress, int(first) if first >= 0 else None


def fit(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Batch],
    config: TrainConfig,
    runtime: Runtime,
    *,
    report: Callable[[Progress], None],
    checkpoint: Callable[[int], None],
    stop_requested: Callable[[], bool] = lambda: False,
    scale: LossScale | None = None,
    stepped: Callable[[int], None] = lambda _: None,
    look: Callable[[int], Look | None] = lambda _: None,
) -> bool:
    """Train from ``config.start`` to the schedule's end, or until a look has seen enough.

    Args:
        objective: gives the losses; its student is in training mode.
        optimizer: fused, so that the device itself can keep it from moving.
        batches: of steps ``config.start``, ``config.start + 1`` ...
        config: steps, rates and rhythm.
        runtime: device and autocast.
        report: called every ``log_every`` steps, at checkpoints and at the end.
        checkpoint: called with the number of steps taken, every ``checkpoint_every`` steps and at a stop.
        stop_requested: asked after every step; several processes stop a step later.
        scale: of the losses, for precision float16; a step whose gradients overflow is skipped.
        stepped: called after every step with the number of steps taken; a device may still be computing them.

    Returns:
        True when the end was reached, False after a requested stop.

    Raises:
        TrainingError: a loss was not finite. The optimizer did not move at that step or after it, and no
            checkpoint was written since.
    """
    assert (scale is None) == (config.precision != "float16")
    end = config.schedule.steps
    window, agreed_stop, stopping = LossWindow(runtime.device), Agreement(runtime.processes), False
    for step in range(config.start, end):
        set_rates(optimizer, config.schedule.factor(step))
        objective.before_step(step)
        optimizer.zero_grad(set_to_none=True)
        losses, metrics = _backward(objective, window.next_of(batches).on(runtime.device), config, step, runtime, scale)
        weights = (weight for part in trained_objectives(objective) for weight in part.student.parameters())
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        total_loss = runtime.processes.mean(torch.stack(list(losses.values())).sum())
        norms = torch.stack(torch._foreach_norm(gradients))
        norm = norms.sum()
        if config.clip_grad_norm is not None:
            metrics |= _clip(gradients, norms, config.clip_grad_norm, scale)
        del gradients  # or they would live beside those of the next step
        window.add(step, losses, metrics, total_loss + norm if scale is None else scale.checked(total_loss))
        skip_step = window.non_finite
        if scale is not None:
            optimizer.grad_scale = scale.value  # type: ignore[attr-defined]
            skip_step = torch.maximum(skip_step, scale.update(norm))
        optimizer.found_inf = skip_step  # type: ignore[attr-defined]
        optimizer.step()

        done = step + 1
        stepped(done)
        seen = window.apart(look, done)
        end = done if seen is not None and seen.enough else end
        # A step later with several processes, so that no step waits for a message.
        stopping = agreed_stop(stop_requested()) and done < end
        saving = stopping or done % config.checkpoint_every == 0
        if saving or done % config.log_every == 0 or done == end or seen is not None:
            rate = optimizer.defaults["lr"] * config.schedule.factor(step)
            progress, first_non_finite = window.read(done, rate, runtime.processes)
            if first_non_finite is not None:
                raise TrainingError(_not_finite(config.stage, first_non_finite, losses))
            report(progress if seen is None else replace(progress, metrics={**progress.metrics, **seen.values}))
            window.reset()
            if saving:
                checkpoint(done)
        if stopping or done == end:
            break
    agreed_stop.answer()
    return not stopping


def _backward(
    objective: Objective, batch: Batch, config: TrainConfig, step: int, runtime: Runtime, scale: LossScale | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Call ``backward`` on each loss of each part of the batch; means of losses and metrics over the parts.

    Every draw is a function of (seed, stream, step); each part drops other channels. Gradients are averaged over the
    processes in the backward pass of the last loss of the last part only.
    """
    means: dict[str, Tensor] = {}
    metrics: dict[str, Tensor] = {}
    parts = batch.parts(config.gradient_accumulation_steps)
    student, stream, name_of = objective.student, config.stream or config.stage, type(objective).__name__
    for number, part in enumerate(parts):
        place = runtime.processes.rank * len(parts) + number
        seed_global_generator(config.seed, stream, step, f"dropout {place}" if place else "dropout")
        losses = objective.losses(part, torch_generator(config.seed, stream, step, "objective"))
        for index in range(objective.num_losses):
            last = number == len(parts) - 1 and index == objective.num_losses - 1
            alone = student.no_sync() if isinstance(student, DistributedDataParallel) and not last else nullcontext()
            with alone, runtime.autocast(config.precision):  # of the forward pass only: backward runs outside
                named = next(losses, None)
            assert named is not None, f"{name_of} yields fewer losses than num_losses"
            share = named[1] / len(parts)
            (share if scale is None else share * scale.value).backward()  # type: ignore[no-untyped-call]
            means[named[0]] = means.get(named[0], 0) + share.detach()
        assert next(losses, None) is None, f"{name_of} yields more losses than num_losses"
        for name, value in objective.metrics.items():
            metrics[name] = metrics.get(name, 0) + value.detach() / len(parts)
    return means, metrics


def _clip(gradients: list[Tensor], norms: Tensor, largest: float, scale: LossScale | None) -> dict[str, Tensor]:
    """Shorten the gradients to the largest norm, on the device (Pascanu et al., arXiv 1211.5063).

    Gradients that are not finite are of no use afterwards: the flag of the step keeps the optimizer still.

    Args:
        gradients: of all weights; changed in place.
        norms: L2 norms of the gradients.
        largest: norm of all gradients together.
        scale: that the gradients are multiplied with, if any.

    Returns:
        The norm before clipping, for logs; nothing with a scale, where overflows are part of the training.
    """
    total = torch.linalg.vector_norm(norms)
    factor = torch.clamp((largest if scale is None else largest * scale.value) / (total + 1e-6), max=1.0)
    torch._foreach_mul_(gradients, factor)
    return {"gradient_norm": total} if scale is None else {}


def _not_finite(stage: str, step: int, losses: Mapping[str, Tensor]) -> str:
    return (
        f"stage {stage}, step {step}: the loss ({' + '.join(losses)}) or its gradient is not finite; training stopped "
        "before the optimizer moved, and the last checkpoint is kept. Lower learning_rate or raise warmup_steps "
        f"(training.* or stages.{stage}.*); with precision float16, try bfloat16 or float32"
    )
