"""Losses averaged over ALL pixels: ignored pixels count in the denominator (docs/method.md, section 2)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from domainbridge.ops.upsample import upsample
from domainbridge.types import IGNORE

__all__ = ["PixelLoss", "cross_entropy", "soft_divergence"]


@dataclass(frozen=True)
class PixelLoss:
    """The cross entropy of a stage: :func:`cross_entropy` with class weights and label smoothing.

    Attributes:
        class_weights: float32 (classes,), on the device; None: all 1.
        label_smoothing: share of the label that goes to all classes alike.
    """

    class_weights: Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """See :func:`cross_entropy`."""
        return cross_entropy(logits, label, weight, self.class_weights, self.label_smoothing)


def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Pixel cross entropy at the label's size.

    Args:
        logits: (batch, classes, h, w), upsampled here.
        label: int64 (batch, height, width), 255 = no loss.
        weight: per pixel, broadcastable to the label; 1 when absent.
        class_weights: (classes,), factor of the loss of a pixel by its class; 1 when absent.
        label_smoothing: share of the label that goes to all classes alike (Szegedy et al., arXiv 1512.00567). With
            class weights, each class's part of the loss has the weight of that class, as in torch.

    Returns:
        A scalar: sum of weight * loss / number of all pixels.
    """
    logits = upsample(logits.float(), (label.shape[-2], label.shape[-1]))
    if weight is None:
        summed = F.cross_entropy(
            logits, label, class_weights, ignore_index=IGNORE, reduction="sum", label_smoothing=label_smoothing
        )
        return summed / label.numel()
    per_pixel = F.cross_entropy(
        logits, label, class_weights, ignore_index=IGNORE, reduction="none", label_smoothing=label_smoothing
    )
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
