"""What a run will cost: memory and arithmetic that follow from the network, time from what was measured before."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.config.schema import Recipe, Training
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.pipeline.networks import model_spec
from domainbridge.pipeline.plan import Stage
from domainbridge.pipeline.stages import parsed_line

__all__ = ["Costs", "Estimate", "costs_of", "estimate"]

_WITH_BACKWARD = {"source-only": 1, "cut": 2, "class": 2, "distil": 2}
"""Student passes of a step whose activations are kept for the backward pass, both at once."""
_FORWARD_ONLY = {"source-only": 0, "cut": 1, "class": 1, "distil": 2}
"""Teacher passes of a step."""
_BACKWARD = 2
"""A backward pass does twice the arithmetic of its forward pass: gradients of the inputs and of the weights."""
_COPIES = {"source-only": 4, "cut": 5, "class": 5, "distil": 6}
"""Copies of the weights: weights, gradients, two moments of AdamW; one teacher, or two."""
_SUSTAINED = 40e12
"""Operations a second that a large data-centre GPU sustains on such networks, about an A100 with mixed precision."""
_GIB = 2**30


@dataclass(frozen=True)
class Costs:
    """Of one batch through the student.

    Attributes:
        parameters: how many.
        activations: bytes that the backward pass needs of one forward pass and its loss.
        operations: floating point operations of one forward pass; a multiply-add counts as two.
    """

    parameters: int
    activations: int
    operations: int

    def memory(self, kind: str) -> int:
        """Bytes at the peak of a step: copies of the weights, and the activations of all passes with a backward."""
        return _COPIES[kind] * self.parameters * 4 + _WITH_BACKWARD[kind] * self.activations

    def step_operations(self, kind: str) -> int:
        """Of a whole training step."""
        return (_WITH_BACKWARD[kind] * (1 + _BACKWARD) + _FORWARD_ONLY[kind]) * self.operations


@dataclass(frozen=True)
class Estimate:
    """Seconds per stage where they can be told, and how the figures were come by."""

    seconds: dict[str, float]
    explanation: str


def estimate(recipe: Recipe, stages: list[Stage], folder: Path) -> Estimate:
    """Memory from the network's own tensors; time from this run folder's measured steps, else from the arithmetic."""
    costs = costs_of(recipe, recipe.training)
    trained = [stage for stage in stages if stage.trains and stage.steps is not None]
    crop = f"{recipe.training.batch_size} x {recipe.crop.width}x{recipe.crop.height}"
    lines = [
        f"memory on one device, batch {crop}: "
        + ", ".join(f"{costs.memory(kind) / _GIB:.1f} GiB {words}" for kind, words in _words(stages))
        + f" ({costs.parameters / 1e6:.1f} M parameters in float32 with gradients, two AdamW moments and teachers; "
        f"{costs.activations / _GIB:.2f} GiB of saved activations per student pass, {recipe.training.precision}; "
        "counted on the network's tensors without running it, the allocator's reserve comes on top)"
    ]
    measured = [
        (stage, seconds)
        for stage in trained
        if (seconds := _seconds_per_step(folder / stage.name / "metrics.jsonl")) is not None
    ]
    operations = {stage.name: costs.step_operations(stage.kind) * (stage.steps or 0) for stage in trained}
    if measured:
        rates = [costs.step_operations(stage.kind) / seconds for stage, seconds in measured]
        rate, how = median(rates), f"the steps measured in this folder ({median(rates) / 1e9:.1f} GFLOP/s)"
    else:
        rate = _SUSTAINED
        how = f"an assumed {_SUSTAINED / 1e12:.0f} TFLOP/s of one large GPU; the first steps on yours will replace it"
    lines.append(
        f"time: {costs.operations / 1e9:.0f} GFLOP a forward pass, {_BACKWARD} more for a backward pass, teachers "
        f"forward only; {sum(operations.values()) / 1e15:.1f} PFLOP in all, at {how}"
    )
    return Estimate({name: count / rate for name, count in operations.items()}, "\n".join(lines))


def costs_of(recipe: Recipe, training: Training) -> Costs:
    """Count on tensors without content: nothing is allocated or computed."""
    with torch.device("meta"):
        student = build_segmenter(model_spec(recipe)).train()
        image = torch.empty(training.batch_size, 3, recipe.crop.height, recipe.crop.width)
        label = torch.empty(training.batch_size, recipe.crop.height, recipe.crop.width, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter:
        activations = _saved_bytes(student, image, label)
    if training.precision == "bfloat16":
        activations //= 2  # nearly all of them are the convolutions' and norms' inputs, kept in the compute type
    parameters = sum(weight.numel() for weight in student.parameters())
    return Costs(parameters, activations, counter.get_total_flops())


def _saved_bytes(student: Segmenter, image: torch.Tensor, label: torch.Tensor) -> int:
    """Bytes of the distinct tensors, other than weights, that autograd keeps of a forward pass and its loss."""
    own = {weight.untyped_storage()._cdata for weight in (*student.parameters(), *student.buffers())}
    kept: dict[int, Any] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(remember, lambda tensor: tensor):
        loss = cross_entropy(student(image).logits, label)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def _words(stages: list[Stage]) -> list[tuple[str, str]]:
    """The kinds of training there are, each once, and how to say them."""
    kinds = {stage.kind for stage in stages}
    words = [("source-only", "source-only"), ("cut", "in self-training"), ("distil", "in distillation")]
    return [(kind, said) for kind, said in words if kind in kinds]


def _seconds_per_step(path: Path) -> float | None:
    if not path.exists():
        return None
    entries = [parsed_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seconds = [entry["seconds"] for entry in entries if entry is not None]
    return median(seconds) if seconds else None
