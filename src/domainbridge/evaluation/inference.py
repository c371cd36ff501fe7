"""Whole images through the network: in one piece, or in windows; with or without the mirror image.

:func:`class_map` is what predicting and scoring use. Its memory is bounded: no tensor holds a value per class for every
pixel of the image. :func:`probabilities` returns exactly such a tensor, for those who want it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.errors import ModelError
from domainbridge.evaluation.logit_blocks import logit_blocks
from domainbridge.evaluation.windows import Windows, fits_in_one_piece, large_image_windows, sliding_windows
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.upsample import upsample

__all__ = ["ClassMap", "InferenceRule", "class_map", "probabilities", "windows_of"]

_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class InferenceRule:
    """How an image is put through the network.

    Attributes:
        window: (height, width) of sliding windows that overlap by a third; None: the whole image at once, or, above
            four megapixels, in windows with context.
        flip: average with the mirrored image.
    """

    window: tuple[int, int] | None = None
    flip: bool = False


@dataclass(frozen=True)
class ClassMap:
    """The result for an image.

    Attributes:
        classes: the most probable class, uint8 (height, width), on the network's device.
        confidence: 255 * its probability, rounded, uint8 (height, width); None where it was not asked for.
    """

    classes: Tensor
    confidence: Tensor | None = None


def windows_of(height: int, width: int, rule: InferenceRule) -> Windows | None:
    """The windows for an image of that size at the network; None: in one piece."""
    if rule.window is not None:
        small = height <= rule.window[0] and width <= rule.window[1]
        return None if small else sliding_windows(height, width, rule.window)
    return None if fits_in_one_piece(height, width) else large_image_windows(height, width)


@torch.inference_mode()
def class_map(
    model: Segmenter,
    image: NDArray[np.uint8],
    size: tuple[int, int],
    rule: InferenceRule,
    device: torch.device,
    *,
    confidence: bool = False,
) -> ClassMap:
    """The most probable class of every pixel, at a chosen size, in bounded memory.

    Args:
        model: in evaluation mode.
        image: RGB, uint8 (height, width, 3), at the network's input size; any size works.
        size: (height, width) of the result. As published, logits go to the input size first, then to this one.
        rule: see there.
        device: the model's.
        confidence: also the probabilities of the classes.

    Raises:
        ModelError: the network gives values that are not numbers.
    """
    classes = torch.empty(size, dtype=torch.uint8, device=device)
    sure = torch.empty(size, dtype=torch.uint8, device=device) if confidence else None
    numbers = torch.ones((), dtype=torch.bool, device=device)
    windows = windows_of(image.shape[0], image.shape[1], rule)
    for box, logits in logit_blocks(model, image, size, windows, device, flip=rule.flip):
        place = slice(box.top, box.bottom), slice(box.left, box.right)
        # Without the mirrored image, logits give the classes, whether or not the confidence is asked for.
        both = [each.softmax(0) for each in logits] if rule.flip or confidence else []
        mean = sum(both[1:], both[0]) / len(both) if both else logits[0]
        best = mean.max(0) if rule.flip else logits[0].max(0)
        if sure is not None:
            sure[place] = (255 * mean.amax(0)).round().to(torch.uint8)
        numbers &= best.values.isfinite().all()
        classes[place] = best.indices.to(torch.uint8)
    if not numbers:
        raise ModelError(
            "the network gives values that are not finite numbers, so its classes mean nothing: its weights are damaged"
        )
    return ClassMap(classes, sure)


@torch.inference_mode()
def probabilities(model: Segmenter, image: Tensor, size: tuple[int, int], rule: InferenceRule) -> Tensor:
    """Softmax at a chosen size, for every class: of a large image, gigabytes.

    Args:
        model: in evaluation mode.
        image: float32 (1, 3, height, width) in [0, 1], at the network's input size; any size works.
        size: (height, width) of the result. As published, logits go to the input size first, then to this one.
        rule: see there; without a window, an image of any size goes through the network at once.

    Returns:
        float32 (1, classes, *size).
    """
    result = upsample(_all_logits(model, image, rule), size).softmax(1)
    if rule.flip:
        mirrored = upsample(_all_logits(model, image.flip(3), rule).flip(3), size).softmax(1)
        result = (result + mirrored) / 2
    return result


def _all_logits(model: Segmenter, image: Tensor, rule: InferenceRule) -> Tensor:
    height, width = image.shape[-2:]
    windows = windows_of(height, width, rule) if rule.window is not None else None
    if windows is None:
        return upsample(model(image).logits.float(), (height, width))
    total, visits = None, image.new_zeros(height, width)
    for first in range(0, len(windows.views), _WINDOWS_AT_ONCE):
        some = windows.views[first : first + _WINDOWS_AT_ONCE]
        batch = torch.cat([image[:, :, view.top : view.bottom, view.left : view.right] for view in some])
        for view, logits in zip(some, upsample(model(batch).logits.float(), some[0].size), strict=True):
            if total is None:
                total = logits.new_zeros(1, len(logits), height, width)
            total[0, :, view.top : view.bottom, view.left : view.right] += logits
            visits[view.top : view.bottom, view.left : view.right] += 1
    assert total is not None
    averaged: Tensor = total / visits
    return averaged
