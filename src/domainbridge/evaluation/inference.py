"""Class probabilities of whole images: in one piece, or in sliding windows; with or without the mirror image."""

from dataclasses import dataclass

import torch
from torch import Tensor

from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.upsample import LazyUpsample, row_chunks, upsample

__all__ = ["InferenceRule", "predicted_classes", "probabilities"]

_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class InferenceRule:
    """How an image is put through the network.

    Attributes:
        window: (height, width) of sliding windows that overlap by a third; None: the whole image at once.
        flip: average with the mirrored image.
    """

    window: tuple[int, int] | None = None
    flip: bool = False

    def in_one_piece(self, height: int, width: int) -> bool:
        """Whether an image of that size needs no windows."""
        return self.window is None or (height <= self.window[0] and width <= self.window[1])


@torch.inference_mode()
def probabilities(model: Segmenter, image: Tensor, size: tuple[int, int], rule: InferenceRule) -> Tensor:
    """Softmax at a chosen size.

    Args:
        model: in evaluation mode.
        image: float32 (1, 3, height, width) in [0, 1], at the network's input size; any size works.
        size: (height, width) of the result. As published, logits go to the input size first, then to this one.
        rule: see there.

    Returns:
        float32 (1, classes, *size).
    """
    result = upsample(_logits(model, image, rule), size).softmax(1)
    if rule.flip:
        mirrored = upsample(_logits(model, image.flip(3), rule).flip(3), size).softmax(1)
        result = (result + mirrored) / 2
    return result


@torch.inference_mode()
def predicted_classes(model: Segmenter, image: Tensor, size: tuple[int, int], rule: InferenceRule) -> Tensor:
    """The most probable class at a chosen size: int64 (height, width); arguments as for :func:`probabilities`.

    Of an image that goes through the network in one piece, the logits never exist at that size.
    """
    height, width = image.shape[-2:]
    if rule.flip or not rule.in_one_piece(height, width):
        return probabilities(model, image, size, rule).argmax(1)[0]
    logits = LazyUpsample(model(image).logits.float(), (height, width), size)
    return torch.cat([logits.rows(rows)[0].max(0).indices for rows in row_chunks(size[0])])


def _logits(model: Segmenter, image: Tensor, rule: InferenceRule) -> Tensor:
    height, width = image.shape[-2:]
    if rule.in_one_piece(height, width):
        return upsample(model(image).logits.float(), (height, width))
    assert rule.window is not None
    tall, wide = min(rule.window[0], height), min(rule.window[1], width)
    corners = [(y, x) for y in _starts(height, tall) for x in _starts(width, wide)]
    total, visits = None, image.new_zeros(height, width)
    for first in range(0, len(corners), _WINDOWS_AT_ONCE):
        some = corners[first : first + _WINDOWS_AT_ONCE]
        windows = torch.cat([image[:, :, y : y + tall, x : x + wide] for y, x in some])
        for (y, x), logits in zip(some, upsample(model(windows).logits.float(), (tall, wide)), strict=True):
            if total is None:
                total = logits.new_zeros(1, len(logits), height, width)
            total[0, :, y : y + tall, x : x + wide] += logits
            visits[y : y + tall, x : x + wide] += 1
    assert total is not None
    averaged: Tensor = total / visits
    return averaged


def _starts(length: int, window: int) -> list[int]:
    """Window starts at steps of two thirds of the window; the last one ends at the border."""
    stride = max(2 * window // 3, 1)
    return [*range(0, length - window, stride), length - window]
