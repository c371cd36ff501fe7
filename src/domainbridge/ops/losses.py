"""Losses averaged over ALL pixels: ignored pixels count in the denominator (docs/method.md, section 2)."""

import torch.nn.functional as F
from torch import Tensor

from domainbridge.ops.upsample import upsample
from domainbridge.types import IGNORE

__all__ = ["cross_entropy", "soft_divergence"]


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Pixel cross entropy at the label's size.

    Args:
        logits: (batch, classes, h, w), upsampled here.
        label: int64 (batch, height, width), 255 = no loss.
        weight: per pixel, broadcastable to the label; 1 when absent.

    Returns:
        A scalar: sum of weight * loss / number of all pixels.
    """
    logits = upsample(logits.float(), (label.shape[-2], label.shape[-1]))
    if weight is None:
        return F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="sum") / label.numel()
    per_pixel = F.cross_entropy(logits, label, ignore_index=IGNORE, reduction="none")
    return (per_pixel * weight).mean()


def soft_divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)), mean per pixel, times T^2 (Hinton et al., arXiv 1503.02531).

    Args:
        logits: of the student, (batch, classes, h, w), upsampled here.
        teacher_logits: (batch, classes, height, width).
        temperature: T.
    """
    logits = upsample(logits.float(), (teacher_logits.shape[-2], teacher_logits.shape[-1]))
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(teacher_logits / temperature, 1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True)
    return divergence.sum(1).mean() * temperature**2
