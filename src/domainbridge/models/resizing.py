"""The one way in which maps are enlarged."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["upsample"]


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned: (batch, channels, h, w) to (batch, channels, *size)."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
