"""AdamW with a faster head, and the published learning-rate schedule (METHOD section 2)."""

from dataclasses import dataclass

import torch

from domainbridge.models.segmenter import Segmenter

__all__ = ["Schedule", "build_optimiser", "set_rates"]

_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up times linear decay to zero.

    Attributes:
        steps: of the stage.
        warmup_steps: during which a factor grows linearly from ``warmup_ratio`` to 1.
        warmup_ratio: 1e-6 as published.
    """

    steps: int
    warmup_steps: int = 0
    warmup_ratio: float = 1e-6

    def factor(self, step: int) -> float:
        """Multiplier of the base rate at ``step``, 0 <= step < steps (golden g_lr)."""
        decay = 1 - step / self.steps
        if step >= self.warmup_steps:
            return decay
        return decay * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))


def build_optimiser(
    model: Segmenter, learning_rate: float, head_multiplier: float, weight_decay: float
) -> torch.optim.AdamW:
    """Two groups, backbone and head; as published, weight decay falls on BatchNorm and biases too."""
    groups = [
        {"params": list(model.backbone.parameters()), "base_rate": learning_rate},
        {"params": list(model.head.parameters()), "base_rate": learning_rate * head_multiplier},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=_BETAS, weight_decay=weight_decay, fused=True)


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate becomes its base rate times ``factor``."""
    for group in optimiser.param_groups:
        group["lr"] = group["base_rate"] * factor
