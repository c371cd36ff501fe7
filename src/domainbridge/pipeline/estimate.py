"""What a run will cost: memory and arithmetic that follow from the network, time from what was measured before."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from domainbridge.config.schema import Recipe
from domainbridge.config.sections import Training
from domainbridge.pipeline.costs import BACKWARD, Costs, costs_of
from domainbridge.pipeline.metrics import parsed_line
from domainbridge.pipeline.plan import Stage, StageState
from domainbridge.pipeline.probe import Probe

__all__ = ["Estimate", "device_memory", "estimate", "memory_notes"]

_SAID = {
    "source-only": "source-only",
    "cut": "in self-training",
    "class": "in self-training",
    "distil": "in distillation",
}
_SUSTAINED = 40e12
"""Operations a second that a large data-centre GPU sustains on such networks, about an A100 with mixed precision."""
_SUSTAINED_BY_THREAD = 20e9
"""... and a CPU's thread: measured 3 to 70, for depthwise and for plain convolutions."""
_GIB = 2**30
_USABLE = 0.9
"""Share of a device's memory: the rest is for its driver, fragments and the data."""
_SAVINGS: tuple[dict[str, Any], ...] = (
    {"recompute": True},
    {"precision": "bfloat16"},
    {"accumulate": 2},
    {"precision": "bfloat16", "recompute": True},
    {"precision": "bfloat16", "accumulate": 4},
)
"""Keys of `training` that make a step smaller, the milder ones first."""
_PROBED = "time: from a few real steps of each kind on this device, loading included; scoring comes on top"


@dataclass(frozen=True)
class Estimate:
    """Seconds per stage where they can be told, and how the figures were come by."""

    seconds: dict[str, float]
    explanation: str


def estimate(recipe: Recipe, stages: list[Stage], folder: Path, probed: Mapping[str, Probe] | None = None) -> Estimate:
    """Memory from the network's own tensors; time from a probe, else measured steps of the folder, else arithmetic."""
    trained = [stage for stage in stages if stage.trains]
    settings = {stage.name: recipe.training_of(stage.name) for stage in trained}
    costs = _costs(recipe, settings)
    memory = "\n".join([_memory_words(recipe, trained, costs, probed), *_ways_to_fit(recipe, trained, costs)])
    if probed:
        seconds = {s.name: probed[s.kind].seconds * s.steps for s in stages if s.steps and s.kind in probed}
        return Estimate(seconds, f"{memory}\n{_PROBED}")
    rates = [
        costs[stage.name].step_operations(stage.kind) / taken
        for stage in trained
        if (taken := _seconds_per_step(folder / stage.name, stage)) is not None
    ]
    operations = {s.name: costs[s.name].step_operations(s.kind) * settings[s.name].steps for s in trained}
    rate = median(rates) if rates else _assumed_rate(recipe)
    words = _time_words(costs, operations, rate, measured=bool(rates))
    return Estimate({name: count / rate for name, count in operations.items()}, f"{memory}\n{words}")


def memory_notes(recipe: Recipe, stages: list[Stage]) -> list[str]:
    """What to say before the first step when a step needs more memory than the device has."""
    trained = [stage for stage in stages if stage.trains]
    return _ways_to_fit(recipe, trained, _costs(recipe, {s.name: recipe.training_of(s.name) for s in trained}))


def _costs(recipe: Recipe, settings: Mapping[str, Training]) -> dict[str, Costs]:
    """Of each stage's step."""
    counted: dict[tuple[object, ...], Costs] = {}
    for training in settings.values():
        counted[_counted_by(training)] = counted.get(_counted_by(training)) or costs_of(recipe, training)
    return {name: counted[_counted_by(training)] for name, training in settings.items()}


def _counted_by(training: Training) -> tuple[object, ...]:
    """What the costs of a step depend on; stages that agree in it are counted once."""
    return training.batch_size, training.accumulate, training.precision, training.recompute


def _ways_to_fit(recipe: Recipe, trained: list[Stage], costs: dict[str, Costs]) -> list[str]:
    """What to change if a step needs more memory than the device has."""
    if not trained:
        return []
    worst = max(trained, key=lambda stage: costs[stage.name].memory(stage.kind))
    needed, there = costs[worst.name].memory(worst.kind), device_memory(recipe.runtime.device)
    if there is None or needed <= _USABLE * there:
        return []
    training = recipe.training_of(worst.name)
    fitting = []
    for change in _SAVINGS:
        if training.batch_size % change.get("accumulate", 1):
            continue
        try:
            smaller = costs_of(recipe, training.model_copy(update=change)).memory(worst.kind)
        except ValueError:  # no blocks to compute again, or parts too small for BatchNorm
            continue
        if smaller <= _USABLE * there:
            words = " ".join(f"training.{key}={str(value).lower()}" for key, value in change.items())
            fitting.append(f"{words} ({smaller / _GIB:.1f} GiB)")
    hint = f"these fit: {', '.join(fitting)}" if fitting else "take a smaller crop or backbone"
    return [
        f"a step of {worst.name} needs about {needed / _GIB:.1f} GiB, more than this device's {there / _GIB:.1f} GiB "
        f"leave room for; {hint}"
    ]


def device_memory(device: str) -> int | None:
    """Bytes of the GPU that a run would use, or of the machine for the CPU; None for a device that is not here."""
    gpus = torch.cuda.device_count()
    place = _place(device)
    if place is None:
        return None
    if place.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    number = place.index or 0
    return torch.cuda.get_device_properties(number).total_memory if place.type == "cuda" and number < gpus else None


def _place(device: str) -> torch.device | None:
    """The device that a run would use; None for what is no device: `run` says so."""
    try:
        return torch.device(("cuda" if torch.cuda.device_count() else "cpu") if device == "auto" else device)
    except RuntimeError:
        return None


def _assumed_rate(recipe: Recipe) -> float:
    place = _place(recipe.runtime.device)
    if place is None or place.type != "cpu":
        return _SUSTAINED
    return _SUSTAINED_BY_THREAD * (recipe.runtime.threads or torch.get_num_threads())


def _memory_words(
    recipe: Recipe, trained: list[Stage], costs: dict[str, Costs], probed: Mapping[str, Probe] | None
) -> str:
    measured = [found.peak_bytes for found in (probed or {}).values() if found.peak_bytes is not None]
    if measured:
        return f"memory on this device: {max(measured) / _GIB:.1f} GiB allocated at the peak of the probed steps"
    peak = {
        _SAID[stage.kind]: max(costs[s.name].memory(s.kind) for s in trained if s.kind == stage.kind)
        for stage in trained
    }
    one = costs[trained[0].name]
    return (
        f"memory on one device, crops of {recipe.crop.width}x{recipe.crop.height}: "
        + ", ".join(f"{size / _GIB:.1f} GiB {said}" for said, size in peak.items())
        + f" ({one.parameters / 1e6:.1f} M parameters in float32 with gradients, two AdamW moments and teachers; "
        f"{max(cost.activations for cost in costs.values()) / _GIB:.2f} GiB of saved activations per student pass; "
        "counted on the network's tensors without running it, the allocator's reserve comes on top)"
    )


def _time_words(costs: dict[str, Costs], operations: dict[str, int], rate: float, *, measured: bool) -> str:
    forward = max(cost.operations for cost in costs.values()) / 1e9
    hours = sum(operations.values()) / _SUSTAINED / 3600
    if measured:
        source = f"the median of the steps measured in this folder, {rate / 1e9:.1f} GFLOP/s"
    elif rate == _SUSTAINED:
        source = f"an assumed {rate / 1e12:.0f} TFLOP/s of one large GPU; the first steps on yours will replace it"
    else:
        source = (
            f"an assumed {rate / 1e9:.0f} GFLOP/s of this CPU, which may be three times off (--probe measures it); one "
            f"large GPU would take {hours:.2g} hours, at an assumed {_SUSTAINED / 1e12:.0f} TFLOP/s"
        )
    return (
        f"time: {forward:.1f} GFLOP a forward pass, {BACKWARD} times as many for a backward pass, teachers forward "
        f"only; {sum(operations.values()) / 1e15:.3g} PFLOP in all, at {source}"
    )


def _seconds_per_step(folder: Path, stage: Stage) -> float | None:
    """As measured in the stage's folder, unless steps were of another size then."""
    state, path = StageState.read(folder), folder / "metrics.jsonl"
    then = (state.done or state.started or {}).get("spec")
    if not path.exists() or then is None or _size_of_steps(then) != _size_of_steps(stage.spec):
        return None
    entries = [parsed_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seconds = [entry["seconds"] for entry in entries if entry is not None]
    return median(seconds) if seconds else None


def _size_of_steps(spec: Mapping[str, Any]) -> list[object]:
    """What the seconds of a step depend on."""
    training = spec["training"]
    return [spec["crop"], spec["model"], *(training.get(key) for key in ("batch_size", "accumulate", "precision"))]
