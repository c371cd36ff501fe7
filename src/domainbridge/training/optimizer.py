"""AdamW with a faster head, and the published learning-rate schedule (docs/method.md, section 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from domainbridge.config.training import TrainingConfig
from domainbridge.errors import ModelError
from domainbridge.models.layers import layer_numbers
from domainbridge.models.segmenter import Segmenter

__all__ = ["Schedule", "build_optimizer", "one_optimizer", "parameter_groups", "set_rates"]

_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up times linear decay to zero.

    Attributes:
        steps: of the stage.
        warmup_steps: during which a factor grows linearly from ``warmup_ratio`` to 1.
        warmup_ratio: factor at step 0.
    """

    steps: int
    warmup_steps: int = 0
    warmup_ratio: float = TrainingConfig().warmup_ratio

    def factor(self, step: int) -> float:
        """Multiplier of the base rate at ``step``, 0 <= step < steps (docs/method.md, section 10)."""
        decay = 1 - step / self.steps
        if step >= self.warmup_steps:
            return decay
        return decay * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))


def build_optimizer(
    model: Segmenter, learning_rate: float, head_lr_mult: float, weight_decay: float, **factors: Any
) -> torch.optim.AdamW:
    """AdamW over the weights that train; arguments as for :func:`parameter_groups`."""
    groups = parameter_groups(model, learning_rate, head_lr_mult, weight_decay, **factors)
    return torch.optim.AdamW(groups, lr=learning_rate, betas=_BETAS, weight_decay=weight_decay, fused=True)


def one_optimizer(optimizers: Sequence[torch.optim.AdamW]) -> torch.optim.AdamW:
    """The first optimizer, which moves the weights of all of them from now on."""
    first, *others = optimizers
    for other in others:
        for group in other.param_groups:
            first.add_param_group(group)
    return first


def parameter_groups(
    model: Segmenter,
    learning_rate: float,
    head_lr_mult: float,
    weight_decay: float,
    *,
    layer_decay: float = 1.0,
    lr_mults: Mapping[str, float] | None = None,
    decay_mults: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Two groups, backbone and head; as published, weight decay falls on BatchNorm and biases too.

    Args:
        model: weights that do not train are left out.
        learning_rate: of the backbone, or of its last layer.
        head_lr_mult: rate of the head / ``learning_rate``.
        weight_decay: of all weights.
        layer_decay: rate of a layer of the backbone / that of the next layer; 1: one rate (BEiT, arXiv 2106.08254).
        lr_mults: part of a weight's name -> further factor of the rate; of several parts that fit, the longest counts.
        decay_mults: part of a weight's name -> factor of the weight decay, likewise.

    Raises:
        ModelError: a part fits no name, or ``layer_decay`` meets a backbone without residual blocks.
    """
    lr_mults, decay_mults = lr_mults or {}, decay_mults or {}
    names = [name for name, _ in model.named_parameters()]
    for key, mults in (("lr_mults", lr_mults), ("decay_mults", decay_mults)):
        _check_parts(key, mults, names)
    layers = layer_numbers(model.backbone) if layer_decay != 1 else {}
    last = max(layers.values(), default=0)
    groups: dict[tuple[str, float, float], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        part, _, rest = name.partition(".")
        mult = head_lr_mult if part == "head" else layer_decay ** (last - layers.get(rest, last))
        rate, decay = learning_rate * mult * _mult(lr_mults, name), weight_decay * _mult(decay_mults, name)
        if weight.requires_grad:
            group = groups.setdefault((part, rate, decay), {"params": [], "base_rate": rate, "weight_decay": decay})
            group["params"].append(weight)
    return list(groups.values())


def _check_parts(key: str, mults: Mapping[str, float], names: list[str]) -> None:
    missing = [part for part in mults if not any(part in name for name in names)]
    if missing:
        raise ModelError(
            f"training.{key}: no weight's name contains {', '.join(missing)}; names are such as {names[0]} and "
            f"{names[-1]}"
        )


def _mult(mults: Mapping[str, float], name: str) -> float:
    """Of the longest part that fits; 1 where none does."""
    fitting = [part for part in mults if part in name]
    return mults[max(fitting, key=len)] if fitting else 1.0


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate becomes its base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
