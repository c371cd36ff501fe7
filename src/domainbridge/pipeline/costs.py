"""What one training step costs in memory and arithmetic, counted on the network without running it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import Training
from domainbridge.models.recomputation import blocks_of, recompute_blocks
from domainbridge.models.segmenter import Segmenter
from domainbridge.pipeline.networks import meta_pass

__all__ = ["BACKWARD", "Costs", "costs_of"]

_WITH_BACKWARD = {"source-only": 1, "cut": 2, "class": 2, "distil": 2}
"""Student passes of a step with a backward pass each, one after the other."""
_FORWARD_ONLY = {"source-only": 0, "cut": 1, "class": 1, "distil": 2}
"""Teacher passes of a step."""
BACKWARD = 2
"""A backward pass does twice the arithmetic of its forward pass: gradients of the inputs and of the weights."""
_COPIES = {"source-only": 4, "cut": 5, "class": 5, "distil": 6}
"""Copies of the weights: weights, gradients, two moments of AdamW; one teacher, or two."""


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
        whole = (_WITH_BACKWARD[kind] * (1 + BACKWARD) + _FORWARD_ONLY[kind]) * self.operations
        return whole + _WITH_BACKWARD[kind] * self.recomputed


def costs_of(recipe: Recipe, training: Training) -> Costs:
    """Count on tensors without content: nothing is allocated or computed.

    Raises:
        RecipeError: the rows of a step are too few and small for BatchNorm.
    """
    student, image = meta_pass(recipe, training)
    label = torch.empty(len(image), recipe.crop.height, recipe.crop.width, dtype=torch.long, device="meta")
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
