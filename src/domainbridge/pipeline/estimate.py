"""What a run will cost: memory and arithmetic that follow from the network, time from what was measured before."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import Training
from domainbridge.errors import ModelError
from domainbridge.models.recomputation import blocks_of, recompute_blocks
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.pipeline.networks import model_spec
from domainbridge.pipeline.plan import Stage
from domainbridge.pipeline.probe import Probe
from domainbridge.pipeline.stages import parsed_line

__all__ = ["Costs", "Estimate", "costs_of", "device_memory", "estimate"]

_WITH_BACKWARD = {"source-only": 1, "cut": 2, "class": 2, "distil": 2}
"""Student passes of a step with a backward pass each, one after the other."""
_FORWARD_ONLY = {"source-only": 0, "cut": 1, "class": 1, "distil": 2}
"""Teacher passes of a step."""
_BACKWARD = 2
"""A backward pass does twice the arithmetic of its forward pass: gradients of the inputs and of the weights."""
_COPIES = {"source-only": 4, "cut": 5, "class": 5, "distil": 6}
"""Copies of the weights: weights, gradients, two moments of AdamW; one teacher, or two."""
_SAID = {
    "source-only": "source-only",
    "cut": "in self-training",
    "class": "in self-training",
    "distil": "in distillation",
}
_SUSTAINED = 40e12
"""Operations a second that a large data-centre GPU sustains on such networks, about an A100 with mixed precision."""
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
class Costs:
    """Of one step's rows through the student.

    Attributes:
        parameters: how many.
        activations: bytes that the backward pass needs of one forward pass, of a part of the batch, and of its loss.
        operations: floating point operations of one forward pass; a multiply-add counts as two.
        recomputed: of these, those that are done once more in every backward pass.
    """

    parameters: int
    activations: int
    operations: int
    recomputed: int = 0

    def memory(self, kind: str) -> int:
        """Bytes at the peak of a step: copies of the weights, and the activations of one pass with a backward."""
        return _COPIES[kind] * self.parameters * 4 + self.activations

    def step_operations(self, kind: str) -> int:
        """Of a whole training step."""
        whole = (_WITH_BACKWARD[kind] * (1 + _BACKWARD) + _FORWARD_ONLY[kind]) * self.operations
        return whole + _WITH_BACKWARD[kind] * self.recomputed


@dataclass(frozen=True)
class Estimate:
    """Seconds per stage where they can be told, and how the figures were come by."""

    seconds: dict[str, float]
    explanation: str


def estimate(recipe: Recipe, stages: list[Stage], folder: Path, probed: Mapping[str, Probe] | None = None) -> Estimate:
    """Memory from the network's own tensors; time from a probe, else measured steps of the folder, else arithmetic."""
    trained = [stage for stage in stages if stage.trains]
    settings = {stage.name: recipe.training_of(stage.name) for stage in trained}
    counted: dict[tuple[object, ...], Costs] = {}
    for training in settings.values():
        counted[_counted_by(training)] = counted.get(_counted_by(training)) or costs_of(recipe, training)
    costs = {name: counted[_counted_by(training)] for name, training in settings.items()}
    memory = "\n".join([_memory_words(recipe, trained, costs, probed), *_ways_to_fit(recipe, trained, costs)])
    if probed:
        seconds = {s.name: probed[s.kind].seconds * s.steps for s in stages if s.steps and s.kind in probed}
        return Estimate(seconds, f"{memory}\n{_PROBED}")
    rates = [
        costs[stage.name].step_operations(stage.kind) / taken
        for stage in trained
        if (taken := _seconds_per_step(folder / stage.name / "metrics.jsonl")) is not None
    ]
    operations = {s.name: costs[s.name].step_operations(s.kind) * settings[s.name].steps for s in trained}
    rate = median(rates) if rates else _SUSTAINED
    words = _time_words(costs, operations, rate, measured=bool(rates))
    return Estimate({name: count / rate for name, count in operations.items()}, f"{memory}\n{words}")


def _counted_by(training: Training) -> tuple[object, ...]:
    """What the costs of a step depend on; stages that agree in it are counted once."""
    return training.batch_size, training.accumulate, training.precision, training.recompute


def _ways_to_fit(recipe: Recipe, trained: list[Stage], costs: dict[str, Costs]) -> list[str]:
    """What to change if a step needs more memory than the device has."""
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
        except ModelError:  # no blocks to compute again
            continue
        if smaller <= _USABLE * there:
            words = " ".join(f"training.{key}={str(value).lower()}" for key, value in change.items())
            fitting.append(f"{words} ({smaller / _GIB:.1f} GiB)")
    hint = f"these fit: {', '.join(fitting)}" if fitting else "take a smaller crop or backbone"
    return [f"that is more than this device's {there / _GIB:.1f} GiB leave room for; {hint}"]


def device_memory(device: str) -> int | None:
    """Bytes of the GPU that a run would use, or of the machine for the CPU; None for a device that is not here."""
    gpus = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and not gpus):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    number = 0 if device in ("auto", "cuda") else int(device.removeprefix("cuda:")) if device[5:].isdigit() else gpus
    return torch.cuda.get_device_properties(number).total_memory if number < gpus else None


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
    if measured:
        source = f"the median of the steps measured in this folder, {rate / 1e9:.1f} GFLOP/s"
    else:
        source = f"an assumed {rate / 1e12:.0f} TFLOP/s of one large GPU; the first steps on yours will replace it"
    return (
        f"time: {forward:.1f} GFLOP a forward pass, {_BACKWARD} times as many for a backward pass, teachers forward "
        f"only; {sum(operations.values()) / 1e15:.3g} PFLOP in all, at {source}"
    )


def costs_of(recipe: Recipe, training: Training) -> Costs:
    """Count on tensors without content: nothing is allocated or computed."""
    with torch.device("meta"):
        student = build_segmenter(model_spec(recipe)).train()
        rows = training.batch_size // training.accumulate
        image = torch.empty(rows, 3, recipe.crop.height, recipe.crop.width)
        label = torch.empty(rows, recipe.crop.height, recipe.crop.width, dtype=torch.long)
    counter, recomputed = FlopCounterMode(display=False), 0
    with counter:
        activations = _saved_bytes(student, image, label)
    if training.recompute:
        blocks, recomputed = _largest_block(student, image)
        recompute_blocks(student.backbone)
        activations = _saved_bytes(student, image, label) + blocks
    if training.precision != "float32":
        activations //= 2  # nearly all of them are the convolutions' and norms' inputs, kept in the compute type
    parameters = sum(weight.numel() for weight in student.parameters())
    operations = counter.get_total_flops() * training.accumulate
    return Costs(parameters, activations, operations, recomputed * training.accumulate)


def _saved_bytes(student: Segmenter, image: torch.Tensor, label: torch.Tensor) -> int:
    """Bytes of the distinct tensors, other than weights, that autograd keeps of a forward pass and its loss."""
    return _kept_bytes(student, lambda: cross_entropy(student(image).logits, label))


def _largest_block(student: Segmenter, image: torch.Tensor) -> tuple[int, int]:
    """Bytes that one block keeps at most while it is computed again, and the operations of all blocks."""
    inputs: list[tuple[nn.Module, Any]] = []
    hooks = [
        block.register_forward_pre_hook(lambda module, given: inputs.append((module, *given)))
        for block in blocks_of(student.backbone)
    ]
    student(image)
    for hook in hooks:
        hook.remove()
    counter = FlopCounterMode(display=False)
    with counter:
        # Blocks that take lists, as HRNet's, are not computed again.
        single = [(block, given) for block, given in inputs if isinstance(given, torch.Tensor)]
        largest = max((_kept_bytes(block, partial(block, given)) for block, given in single), default=0)
    return largest, counter.get_total_flops()


def _kept_bytes(module: nn.Module, work: Callable[[], torch.Tensor]) -> int:
    own = {weight.untyped_storage()._cdata for weight in (*module.parameters(), *module.buffers())}
    kept: dict[int, Any] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(remember, lambda tensor: tensor):
        result = work()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def _seconds_per_step(path: Path) -> float | None:
    if not path.exists():
        return None
    entries = [parsed_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seconds = [entry["seconds"] for entry in entries if entry is not None]
    return median(seconds) if seconds else None
