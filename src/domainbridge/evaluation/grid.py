"""The pixels at which predictions without labels are compared: a quarter of the image's height and width.

Of an image that does not pass the network at once (above four megapixels), the middle is taken.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.transforms import resize_label
from domainbridge.evaluation.windows import fits_in_one_piece
from domainbridge.ops.upsample import upsample
from domainbridge.types import as_unit_float

__all__ = ["image_on", "label_on_grid", "middle", "on_grid"]

_STEP = 4
"""Pixels of the image per compared pixel, in each direction: the finest cells that a head has."""
_MIDDLE = 2048
"""Longest side of the middle of a large image."""

Pixels = NDArray[np.uint8]


def middle(array: Pixels) -> Pixels:
    """The image or label, or its middle of at most 2048x2048 pixels."""
    height, width = array.shape[:2]
    if fits_in_one_piece(height, width):
        return array
    top, left = max(height - _MIDDLE, 0) // 2, max(width - _MIDDLE, 0) // 2
    return array[top : top + _MIDDLE, left : left + _MIDDLE]


def image_on(device: torch.device, image: Pixels) -> Tensor:
    """The middle of an image, uint8 (height, width, 3), as float32 (1, 3, h, w) in [0, 1] on the device."""
    array = np.ascontiguousarray(middle(image).transpose(2, 0, 1))
    return as_unit_float(torch.from_numpy(array).to(device))[None]


def label_on_grid(device: torch.device, label: Pixels) -> Tensor:
    """Train ids at the compared pixels of a label, uint8 (height, width); int64 (h, w) on the device."""
    part = middle(label)
    ids = resize_label(np.ascontiguousarray(part), _grid(part.shape[0], part.shape[1]))
    return torch.from_numpy(ids).long().to(device)


def on_grid(logits: Tensor, image: Tensor) -> Tensor:
    """Logits (1, K, ...) of an image (1, 3, height, width) at the compared pixels, float32 (K, h, w)."""
    return upsample(logits.float(), _grid(image.shape[2], image.shape[3]))[0]


def _grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // _STEP), -(-width // _STEP)
