"""Memory and time of a run: memory from the network's own tensors, time from a probe, earlier steps, or arithmetic."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from domainbridge.config.schema import Recipe
from domainbridge.methods.base import AdaBNStage
from domainbridge.tools.costs import costs_of, costs_of_stage
from domainbridge.tools.probe import Probe
from domainbridge.tools.stage_loads import StageLoad, StageToDo, stage_loads

__all__ = ["Estimate", "device_memory", "estimate", "memory_notes"]

_GPU_RATE = 40e12
"""Operations a second that a large data-center GPU sustains on such networks, about an A100 with mixed precision."""
_LAUNCHES = 0.02
"""Seconds that the host takes to launch the kernels of a step, thousands at 5 to 10 us each; however small they are."""
_THREAD_RATE = 20e9
"""Operations a second of a CPU thread: measured 3e9 to 70e9, for depthwise and for plain convolutions."""
_GIB = 2**30
_USABLE = 0.9
"""Share of a device's memory; the rest is for its driver, fragments and the data."""
_SAVINGS: tuple[dict[str, Any], ...] = (
    {"activation_checkpointing": True},
    {"precision": "bfloat16"},
    {"gradient_accumulation_steps": 2},
    {"precision": "bfloat16", "activation_checkpointing": True},
    {"precision": "bfloat16", "gradient_accumulation_steps": 4},
)
"""Keys of `training` that make a step smaller, the milder ones first."""


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a run's stages.

    Attributes:
        seconds: per stage, where an estimate exists.
        explanation: how the figures come about.
        step_seconds: per step of each training stage.
        gpu_step_seconds: the same for one large GPU, at 40 TFLOP/s; empty when the device is one.
        loads: of the training stages.
    """

    seconds: dict[str, float]
    explanation: str
    step_seconds: dict[str, float] = field(default_factory=dict)
    gpu_step_seconds: dict[str, float] = field(default_factory=dict)
    loads: tuple[StageLoad, ...] = ()


def estimate(
    recipe: Recipe,
    stages: Sequence[StageToDo],
    measured: Mapping[str, float] | None = None,
    probed: Mapping[str, Probe] | None = None,
    available: int | None = None,
) -> Estimate:
    """Memory and time of a recipe's stages.

    Args:
        recipe: complete.
        stages: all of them.
        measured: seconds per step of earlier starts, by stage.
        probed: by kind of stage, as :func:`domainbridge.tools.probe.probe` gives them; used instead of ``measured``.
        available: bytes of the device; default: of the recipe's device on this machine.
    """
    loads = stage_loads(recipe, stages)
    memory = "\n".join([_memory_text(recipe, loads, probed), *_ways_to_fit(recipe, loads, available)])
    if probed:
        seconds = {s.name: probed[s.spec.kind].seconds * s.steps for s in stages if s.steps and s.spec.kind in probed}
        note = "time: from a few real steps of each kind on this device, loading included; scoring comes on top"
        steps = {s.name: probed[s.spec.kind].seconds for s in stages if s.training and s.spec.kind in probed}
        return Estimate(seconds, f"{memory}\n{note}", steps, _on_a_gpu(recipe, loads), tuple(loads))
    rates = [load.operations / measured[load.stage.name] for load in loads if measured and load.stage.name in measured]
    rate = median(rates) if rates else _assumed_rate(recipe)
    operations = {load.stage.name: load.operations * load.training.steps for load in loads}
    operations |= _forward_operations(recipe, stages)
    text = _time_text(loads, sum(operations.values()), rate, measured=bool(rates))
    return Estimate(
        {name: count / rate for name, count in operations.items()},
        f"{memory}\n{text}",
        {load.stage.name: load.operations / rate for load in loads},
        _on_a_gpu(recipe, loads),
        tuple(loads),
    )


def memory_notes(recipe: Recipe, loads: Sequence[StageLoad], available: int | None = None) -> list[str]:
    """What to say before the first step when a step needs more memory than the device has.

    Args:
        recipe: complete.
        loads: of the stages that are to be done.
        available: bytes of the device; default: of the recipe's device on this machine.
    """
    return _ways_to_fit(recipe, loads, available)


def device_memory(device: str) -> int | None:
    """Bytes of the GPU that a run would use, or of the machine for the CPU; None for a device that is not here."""
    resolved = _resolved(device)
    if resolved is None:
        return None
    if resolved.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    number = resolved.index or 0
    if resolved.type != "cuda" or number >= torch.cuda.device_count():
        return None
    return torch.cuda.get_device_properties(number).total_memory


def _on_a_gpu(recipe: Recipe, loads: list[StageLoad]) -> dict[str, float]:
    """Seconds per step of each stage on one large GPU, for a recipe that runs on a CPU here."""
    resolved = _resolved(recipe.runtime.device)
    if resolved is None or resolved.type != "cpu":
        return {}
    return {load.stage.name: max(load.operations / _GPU_RATE, _LAUNCHES) for load in loads}


def _forward_operations(recipe: Recipe, stages: Sequence[StageToDo]) -> dict[str, int]:
    """Operations of the stages that take statistics: a forward pass per batch."""
    batches = {item.name: item.steps for item in stages if isinstance(item.spec, AdaBNStage)}
    if not batches:
        return {}
    whole = {"gradient_accumulation_steps": 1, "activation_checkpointing": False}
    costs = costs_of(recipe, recipe.training.model_copy(update=whole))
    return {name: costs.operations * count for name, count in batches.items() if count is not None}


def _ways_to_fit(recipe: Recipe, loads: Sequence[StageLoad], available: int | None) -> list[str]:
    """Keys to change if a step needs more memory than the device has."""
    there = available if available is not None else device_memory(recipe.runtime.device)
    worst = max(loads, key=lambda load: load.memory, default=None)
    if worst is None or there is None or worst.memory <= _USABLE * there:
        return []
    fitting = []
    for change in _SAVINGS:
        if worst.training.batch_size % change.get("gradient_accumulation_steps", 1):
            continue
        try:
            changed = worst.training.model_copy(update=change)
            smaller = costs_of_stage(recipe, worst.stage, changed).memory(worst.stage)
        except ValueError:  # no blocks to compute again, or parts too small for BatchNorm
            continue
        if smaller <= _USABLE * there:
            keys = " ".join(f"training.{key}={str(value).lower()}" for key, value in change.items())
            fitting.append(f"{keys} ({smaller / _GIB:.1f} GiB)")
    hint = f"these fit: {', '.join(fitting)}" if fitting else "take a smaller crop or backbone"
    return [
        f"a step of {worst.stage.name} needs about {worst.memory / _GIB:.1f} GiB, more than this device's "
        f"{there / _GIB:.1f} GiB leave room for; {hint}"
    ]


def _resolved(device: str) -> torch.device | None:
    """The device that a run would use; None for a name that is no device."""
    try:
        return torch.device(("cuda" if torch.cuda.device_count() else "cpu") if device == "auto" else device)
    except RuntimeError:
        return None


def _assumed_rate(recipe: Recipe) -> float:
    resolved = _resolved(recipe.runtime.device)
    if resolved is None or resolved.type != "cpu":
        return _GPU_RATE
    return _THREAD_RATE * (recipe.runtime.threads or torch.get_num_threads())


def _memory_text(recipe: Recipe, loads: list[StageLoad], probed: Mapping[str, Probe] | None) -> str:
    peaks = [result.peak_bytes for result in (probed or {}).values() if result.peak_bytes is not None]
    if peaks:
        return f"memory on this device: {max(peaks) / _GIB:.1f} GiB allocated at the peak of the probed steps"
    if not loads:
        return "memory: no stage trains"
    by_kind = {
        load.stage.kind: max(other.memory for other in loads if other.stage.kind == load.stage.kind) for load in loads
    }
    return (
        f"memory on one device, crops of {recipe.crop.width}x{recipe.crop.height}: "
        + ", ".join(f"{size / _GIB:.1f} GiB in {kind}" for kind, size in by_kind.items())
        + f" ({_parameters_text(loads)} in float32 with gradients, two AdamW moments and "
        f"teachers; {max(load.costs.activations for load in loads) / _GIB:.2f} GiB of saved activations per student "
        "pass; counted on the network's tensors without running it, the allocator's reserve comes on top)"
    )


def _parameters_text(loads: list[StageLoad]) -> str:
    costs = max((load.costs for load in loads), key=lambda each: each.parameters)
    least = min(load.costs.trainable for load in loads)
    part = f" ({least / 1e6:.1f} M train)" if least < costs.parameters else ""
    return f"{costs.parameters / 1e6:.1f} M parameters{part}"


def _time_text(loads: list[StageLoad], operations: int, rate: float, *, measured: bool) -> str:
    forward = max((load.costs.operations for load in loads), default=0) / 1e9
    if measured:
        source = f"the median of the steps measured in this folder, {rate / 1e9:.1f} GFLOP/s"
    elif rate == _GPU_RATE:
        source = f"an assumed {rate / 1e12:.0f} TFLOP/s of one large GPU; the first steps on yours will replace it"
    else:
        source = (
            f"an assumed {rate / 1e9:.0f} GFLOP/s of this CPU, which may be three times off (--probe measures it); one "
            f"large GPU would take {operations / _GPU_RATE / 3600:.2g} hours, at {_GPU_RATE / 1e12:.0f} TFLOP/s"
        )
    return (
        f"time: {forward:.1f} GFLOP a forward pass, twice as many for a backward pass, teachers forward only; "
        f"{operations / 1e15:.3g} PFLOP in all, at {source}"
    )
