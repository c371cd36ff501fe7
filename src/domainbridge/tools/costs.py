"""Memory and arithmetic of one training step, counted on the network without running it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from domainbridge.build.given_models import largest_teacher
from domainbridge.build.networks import meta_pass
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.methods.base import TrainingStage
from domainbridge.models.activation_checkpointing import blocks_of, checkpoint_blocks
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.losses import cross_entropy

__all__ = ["Costs", "costs_of", "costs_of_stage"]

_MOMENTS = 2
"""Moments of AdamW, in float32, per weight that trains."""
_BACKWARD = 2
"""A backward pass does twice the arithmetic of its forward pass: gradients of the inputs and of the weights."""


@dataclass(frozen=True)
class Costs:
    """Of one step's rows through the student.

    Attributes:
        parameters: number of weights.
        activations: bytes that the backward pass needs of one forward pass, of a part of the batch, and of its loss.
        operations: floating point operations of one forward pass; a multiply-add counts as two.
        recomputed: operations that activation checkpointing repeats in every backward pass.
        teacher: costs of a teacher of another architecture; None: teachers are as large as the student.
        trainable: number of weights that train: fewer than ``parameters`` with LoRA or a frozen trunk.
        frozen_operations: those of ``operations`` that have no backward pass: of a frozen trunk.
    """

    parameters: int
    activations: int
    operations: int
    recomputed: int = 0
    trainable: int = 0
    frozen_operations: int = 0
    teacher: "Costs | None" = None

    def memory(self, stage: TrainingStage) -> int:
        """Bytes at the peak of a step: copies of the weights, and the activations of one pass with a backward.

        An EMA teacher shares what does not train. Networks of a stage with a frozen trunk count as if their trunks
        were the same, which is so where the stages before had it frozen too.
        """
        frozen = self.frozen_operations > 0
        loaded = self.trainable if frozen and self.teacher is None else (self.teacher or self).parameters
        gradients = stage.students * self.trainable
        teachers = (stage.teacher_passes - stage.ema_teachers) * loaded
        return self.checkpoint(stage) + (gradients + teachers) * 4 + self.activations

    def checkpoint(self, stage: TrainingStage) -> int:
        """Bytes of a checkpoint: students, AdamW's two moments and EMA teachers; what does not train is there once."""
        still = (self.parameters - self.trainable) * (1 if self.frozen_operations > 0 else stage.students)
        return (still + (1 + _MOMENTS) * stage.students * self.trainable + stage.ema_teachers * self.trainable) * 4

    def step_operations(self, stage: TrainingStage) -> int:
        """Of a whole training step; passes of a frozen trunk that are shared count as often as they would without."""
        moved = self.operations - self.frozen_operations
        student = stage.student_passes * (self.operations + _BACKWARD * moved + self.recomputed)
        return student + stage.teacher_passes * (self.teacher or self).operations


def costs_of_stage(recipe: Recipe, stage: TrainingStage, training: TrainingConfig) -> Costs:
    """Costs of a stage's network, with those of its teachers where they have another one.

    Raises:
        ModelError: as for :func:`costs_of`.
        RecipeError: likewise.
    """
    changed = stage_recipe(recipe, stage)
    costs = costs_of(changed, training)
    teachers = largest_teacher(recipe, stage) or (recipe if changed is not recipe else None)
    return costs if teachers is None else replace(costs, teacher=costs_of(teachers, training))


def costs_of(recipe: Recipe, training: TrainingConfig) -> Costs:
    """Count on the meta device: nothing is allocated or computed.

    Raises:
        ModelError: the backbone has no blocks for activation checkpointing.
        RecipeError: the rows of a step are too few and small for BatchNorm.
    """
    student, image = meta_pass(recipe, training)
    label = torch.empty(len(image), recipe.crop.height, recipe.crop.width, dtype=torch.long, device="meta")

    def loss() -> Tensor:
        return cross_entropy(student(image).logits, label)

    recomputed = 0
    with FlopCounterMode(display=False) as counter:
        activations = _saved_bytes(student, loss)
    frozen = 0
    if student.trunk_frozen:
        with FlopCounterMode(display=False) as trunk_counter, torch.no_grad():
            student.backbone(image)
        frozen = trunk_counter.get_total_flops()
    elif training.activation_checkpointing:
        block, recomputed = _largest_block(student, image)
        checkpoint_blocks(student.backbone)
        activations = _saved_bytes(student, loss) + block
    if training.precision != "float32":
        activations //= 2  # nearly all of them are inputs of convolutions and norms, kept in the compute type
    parts = training.gradient_accumulation_steps
    parameters = sum(weight.numel() for weight in student.parameters())
    trainable = sum(weight.numel() for weight in student.parameters() if weight.requires_grad)
    operations = counter.get_total_flops() * parts
    return Costs(parameters, activations, operations, recomputed * parts, trainable, frozen * parts)


def _largest_block(student: Segmenter, image: Tensor) -> tuple[int, int]:
    """Bytes that one block keeps at most while it is computed again, and the operations of all blocks."""
    calls: list[tuple[nn.Module, partial[Any]]] = []

    def remember(block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if not any(isinstance(each, list) for each in (*inputs, *named.values())):
            calls.append((block, partial(block, *inputs, **named)))  # blocks that take lists are not computed again

    blocks = blocks_of(student.backbone)
    hooks = [block.register_forward_pre_hook(remember, with_kwargs=True) for block in blocks]
    student(image)
    for hook in hooks:
        hook.remove()
    with FlopCounterMode(display=False) as counter:
        largest = max((_saved_bytes(block, call) for block, call in calls), default=0)
    return largest, counter.get_total_flops()


def _saved_bytes(module: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes of the distinct tensors, other than the module's weights, that autograd keeps of a forward pass."""
    weights = {weight.untyped_storage()._cdata for weight in (*module.parameters(), *module.buffers())}
    kept: dict[int, Any] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(remember, lambda tensor: tensor), _FusedAttention():
        result = forward()
    assert not isinstance(result, Tensor) or result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


class _FusedAttention(TorchFunctionMode):
    """Attention as devices compute it: without keeping a row of scores per token, as the meta device would."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return _fused_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's memory-efficient attention (Rabe and Staats, arXiv 2112.05682), for shapes alone."""
    if query.dim() != 4 or enable_gqa:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=query.dtype)
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    result: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, True, dropout_p, is_causal, scale=scale
    )[0]
    return result
