"""Dynamic loss scaling, so that small gradients survive float16 (Micikevicius et al., arXiv 1710.03740).

Losses are multiplied by a scale, gradients divided by it. Where gradients overflow the step is left out and the scale
halved; after many steps without overflow it doubles. torch's ``GradScaler`` does the same but decides alone whether the
optimizer moves; here a loss that is not finite must be able to keep it still for good.
"""

import torch
from torch import Tensor

__all__ = ["FIRST_SCALE", "LossScale", "loss_scale"]

FIRST_SCALE = 2.0**16
"""Of a fresh run, as in torch."""
_PATIENCE = 2000
"""Steps without overflow before the scale doubles, as in the paper and in torch."""
_LEAST = 2.0**-14
"""Where gradients overflow even at this scale, they are not finite in float32 either."""


def loss_scale(precision: str, device: torch.device) -> "LossScale | None":
    """A fresh scale where the precision needs one."""
    return LossScale(device) if precision == "float16" else None


class LossScale:
    """The scale, on the device: nothing here waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), FIRST_SCALE, device=device)
        self.steady = torch.zeros((), device=device)

    def update(self, gradients: Tensor) -> Tensor:
        """Take in the norm of all scaled gradients.

        Returns:
            float32 scalar: 1 where the gradients overflowed and the optimizer must stay still, else 0.
        """
        overflow = ~torch.isfinite(gradients)
        steady = torch.where(overflow, 0.0, self.steady + 1)
        grown = torch.where(steady >= _PATIENCE, 2 * self.value, self.value)
        self.value = torch.where(overflow, self.value / 2, grown)
        self.steady = steady.remainder(_PATIENCE)
        return overflow.float()

    def checked(self, loss: Tensor) -> Tensor:
        """The loss, or NaN where no scale is small enough for the gradients: training would stand still unseen."""
        return torch.where(self.value < _LEAST, torch.nan, loss)

    def state_dict(self) -> dict[str, Tensor]:
        """What must survive a restart."""
        return {"value": self.value, "steady": self.steady}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The opposite of ``state_dict``."""
        self.value.copy_(state["value"])
        self.steady.copy_(state["steady"])
