"""Whole images through the network: in one piece, or in windows; at several scales, with or without the mirror image.

:func:`class_maps` is what predicting and scoring use. Its memory is bounded: no tensor holds a value per class for
every pixel of the image. :func:`probabilities` returns exactly such a tensor, for those who want it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.transforms import resize_image
from domainbridge.errors import ModelError
from domainbridge.evaluation.inference_rule import InferenceRule, windows_of
from domainbridge.evaluation.kept_views import Network
from domainbridge.evaluation.logit_blocks import (
    Blocks,
    blocks_in_one_piece,
    parts_in_windows,
    passes_in_one_piece,
)
from domainbridge.evaluation.segmentation_model import WindowedImage
from domainbridge.evaluation.window_logits import empty_apart
from domainbridge.evaluation.windows import (
    ONE_PIECE,
    Box,
)
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.upsample import upsample

__all__ = [
    "ClassMap",
    "check_finite",
    "class_map_parts",
    "class_maps",
    "images_at_once",
    "probabilities",
]

_WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class ClassMap:
    """The result for an image.

    Attributes:
        classes: the most probable class, uint8 (height, width), on the network's device.
        finite: bool scalar on that device: whether all values of the network are numbers. Whoever uses the classes
            must look at it (``checked``); the look waits for the device.
        confidence: 255 * its probability, rounded, uint8 (height, width); None where it was not asked for.
        probabilities: 255 * the probability of every class, rounded, uint8 (height, width, classes); likewise.
    """

    classes: Tensor
    finite: Tensor
    confidence: Tensor | None = None
    probabilities: Tensor | None = None

    def checked(self) -> "ClassMap":
        """Itself.

        Raises:
            ModelError: the network gives values that are not numbers.
        """
        check_finite(self.finite)
        return self


def check_finite(finite: Tensor) -> None:
    """Look at a flag of :class:`ClassMap`.

    Raises:
        ModelError: the network gives values that are not numbers.
    """
    if not finite:
        raise ModelError(
            "the network gives values that are not finite numbers, so its classes mean nothing: its weights are "
            "damaged, or float16 is too small for them (precision float32 or bfloat16)"
        )


def images_at_once(height: int, width: int, rule: InferenceRule, device: torch.device) -> int:
    """How many images of that size at the network go through it together.

    On a GPU as many as have, at the largest scale, the pixels of the largest image that goes through in one piece. A
    CPU gains nothing.
    """
    tall, wide = rule.largest_size(height, width)
    if device.type == "cpu" or windows_of(tall, wide, rule) is not None:
        return 1
    return max(ONE_PIECE // (tall * wide), 1)


@torch.inference_mode()
def class_maps(
    model: Segmenter,
    images: Sequence[NDArray[np.uint8]],
    sizes: Sequence[tuple[int, int]],
    rule: InferenceRule,
    device: torch.device,
    *,
    confidence: bool = False,
    probabilities: bool = False,
) -> list[ClassMap]:
    """The most probable class of every pixel of images of one size, in bounded memory; nothing waits for the device.

    Args:
        model: in evaluation mode.
        images: RGB, uint8 (height, width, 3), at the network's input size; any size works, the same for all.
        sizes: (height, width) of each result. As published, logits go to the input size first, then to this one.
        rule: see there.
        device: the model's.
        confidence: also the probability of the most probable class.
        probabilities: also those of all classes: a byte per class and pixel.
    """
    wanted = _Wanted(rule.several, confidence, probabilities)
    network = Network.under(rule, model, device)
    if _in_windows(images[0], rule):
        in_parts = (parts_in_windows(network, image, size, rule) for image, size in zip(images, sizes, strict=True))
        every: Iterable[Blocks] = (chain.from_iterable(blocks for _, blocks in parts) for parts in in_parts)
    else:
        passes = passes_in_one_piece(network, images, rule)
        each = ([whole.of(number) for whole in passes] for number in range(len(images)))
        every = (blocks_in_one_piece(some, size) for some, size in zip(each, sizes, strict=True))
    return [
        _best(blocks, Box(0, size[0], 0, size[1]), device, wanted) for blocks, size in zip(every, sizes, strict=True)
    ]


@torch.inference_mode()
def class_map_parts(
    model: Segmenter,
    image: WindowedImage,
    size: tuple[int, int],
    rule: InferenceRule,
    device: torch.device,
    *,
    confidence: bool = False,
    probabilities: bool = False,
) -> Iterator[tuple[Box, ClassMap]]:
    """The result of an image of any size, part by part: the image need not be in memory as a whole.

    Arguments are those of :func:`class_maps`. The parts have a few million pixels at most, cover the result once, and
    come row by row from the top, each row from the left.
    """
    wanted = _Wanted(rule.several, confidence, probabilities)
    network = Network.under(rule, model, device)
    if _in_windows(image, rule):
        for part, blocks in parts_in_windows(network, image, size, rule):
            yield part, _best(blocks, part, device, wanted)
        return
    passes = passes_in_one_piece(network, [image[0 : image.shape[0], 0 : image.shape[1]]], rule)
    rows = max(ONE_PIECE // size[1], 1)
    for top in range(0, size[0], rows):
        part = Box(top, min(top + rows, size[0]), 0, size[1])
        yield part, _best(blocks_in_one_piece(passes, size, slice(part.top, part.bottom)), part, device, wanted)


def _in_windows(image: WindowedImage, rule: InferenceRule) -> bool:
    """Whether the image is too large for one piece, at one of the scales."""
    return windows_of(*rule.largest_size(image.shape[0], image.shape[1]), rule) is not None


@dataclass(frozen=True)
class _Wanted:
    """What is computed from the logits; ``several``: of more than one pass, whose probabilities are averaged."""

    several: bool
    confidence: bool
    probabilities: bool


def _best(blocks: Blocks, part: Box, device: torch.device, wanted: _Wanted) -> ClassMap:
    """The most probable classes of a part of the result, block by block."""
    classes = empty_apart(part.size, torch.uint8, device)
    sure = empty_apart(part.size, torch.uint8, device) if wanted.confidence else None
    finite = torch.ones((), dtype=torch.bool, device=device)
    every: Tensor | None = None
    for box, logits in blocks:
        place = slice(box.top - part.top, box.bottom - part.top), slice(box.left - part.left, box.right - part.left)
        # In a single pass, logits give the classes, whether or not probabilities are asked for.
        soft = wanted.several or wanted.confidence or wanted.probabilities
        mean = _mean([each.softmax(0) for each in logits]) if soft else logits[0]
        best = mean.max(0) if wanted.several else logits[0].max(0)
        if sure is not None:
            sure[place] = _bytes(mean.amax(0))
        if wanted.probabilities:
            every = every if every is not None else empty_apart((*part.size, len(mean)), torch.uint8, device)
            every[place] = _bytes(mean).permute(1, 2, 0)
        finite &= best.values.isfinite().all()
        classes[place] = best.indices.to(torch.uint8)
    return ClassMap(classes, finite, sure, every)


def _bytes(shares: Tensor) -> Tensor:
    """Probabilities as 0 to 255, rounded."""
    return (255 * shares).round().to(torch.uint8)


def _mean(passes: Sequence[Tensor]) -> Tensor:
    return sum(passes[1:], passes[0]) / len(passes)


@torch.inference_mode()
def probabilities(
    model: Segmenter, image: NDArray[np.uint8], size: tuple[int, int], rule: InferenceRule, device: torch.device
) -> Tensor:
    """Softmax at a chosen size, for every class: of a large image, gigabytes.

    Args:
        model: in evaluation mode.
        image: RGB, uint8 (height, width, 3), at the network's input size; any size works.
        size: (height, width) of the result. As published, logits go to the input size first, then to this one.
        rule: see there; without a window, an image of any size goes through the network at once.
        device: the model's.

    Returns:
        float32 (1, classes, *size), the mean over the scales and, with ``rule.flip``, over the mirrored images too.
    """
    network = Network.under(rule, model, device)
    images = [resize_image(image, scaled) for scaled in rule.sizes(image.shape[0], image.shape[1])]
    every = [_all_logits(network, each, rule, mirror=mirror) for each in images for mirror in rule.mirrors]
    return _mean([upsample(logits, size).softmax(1) for logits in every])


def _all_logits(network: Network, image: NDArray[np.uint8], rule: InferenceRule, *, mirror: bool) -> Tensor:
    height, width = image.shape[:2]
    windows = windows_of(height, width, rule) if rule.window is not None else None
    if windows is None:
        return _upsampled(network, network.logits([image], mirror=mirror), (height, width))
    total, visits = None, torch.zeros(height, width, device=network.device)
    views = windows.mean_views(Box(0, height, 0, width), mirror=mirror)
    for first in range(0, len(views), _WINDOWS_AT_ONCE):
        some = views[first : first + _WINDOWS_AT_ONCE]
        crops = [image[view.top : view.bottom, view.left : view.right] for view in some]
        every = _upsampled(network, network.logits(crops, mirror=mirror), some[0].size)
        for view, logits in zip(some, every, strict=True):
            if total is None:
                total = logits.new_zeros(1, len(logits), height, width)
            total[0, :, view.top : view.bottom, view.left : view.right] += logits
            visits[view.top : view.bottom, view.left : view.right] += 1
    assert total is not None
    averaged: Tensor = total / visits
    return averaged


def _upsampled(network: Network, logits: Tensor, size: tuple[int, int]) -> Tensor:
    return upsample(logits, network.covered(size))[:, :, : size[0], : size[1]]
