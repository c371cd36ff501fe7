"""AdamW with a faster head, and the published learning-rate schedule (docs/method.md, section 2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from domainbridge.config.training import TrainingConfig
from domainbridge.models.segmenter import Segmenter

__all__ = ["Schedule", "build_optimizer", "one_optimizer", "set_rates"]

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
    model: Segmenter, learning_rate: float, head_lr_mult: float, weight_decay: float
) -> torch.optim.AdamW:
    """Two groups, backbone and head; as published, weight decay falls on BatchNorm and biases too."""
    groups = [
        {"params": list(model.backbone.parameters()), "base_rate": learning_rate},
        {"params": list(model.head.parameters()), "base_rate": learning_rate * head_lr_mult},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=_BETAS, weight_decay=weight_decay, fused=True)


def one_optimizer(optimizers: Sequence[torch.optim.AdamW]) -> torch.optim.AdamW:
    """The first optimizer, which moves the weights of all of them from now on."""
    first, *others = optimizers
    for other in others:
        for group in other.param_groups:
            first.add_param_group(group)
    return first


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate becomes its base rate times ``factor``."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_rate"] * factor
