"""Pasting: the bridged image, label and weight of METHOD section 1."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Bridged", "bridge"]


class Bridged(NamedTuple):
    """A mix of source and target samples.

    Attributes:
        image: float32 (batch, 3, height, width) in [0, 1].
        label: int64 (batch, height, width).
        weight: float32 (batch, height, width), 1 on source pixels.
    """

    image: Tensor
    label: Tensor
    weight: Tensor


def bridge(
    mask: Tensor,
    source_image: Tensor,
    source_label: Tensor,
    target_image: Tensor,
    pseudo_label: Tensor,
    pseudo_weight: Tensor,
) -> Bridged:
    """M * source + (1 - M) * target, for image, label and weight.

    Args:
        mask: bool (batch, height, width), True where the source shows.
        source_image: float32 (batch, 3, height, width).
        source_label: int64 (batch, height, width).
        target_image: like ``source_image``.
        pseudo_label: like ``source_label``.
        pseudo_weight: weight of target pixels, broadcastable to (batch, height, width).
    """
    return Bridged(
        torch.where(mask[:, None], source_image, target_image),
        torch.where(mask, source_label, pseudo_label),
        torch.where(mask, torch.ones_like(pseudo_weight), pseudo_weight),
    )
