"""The two values that pass between rooms: one decoded sample, and one batch of crops."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["IGNORE", "Batch", "Sample"]

IGNORE = 255
"""Label value of pixels that no loss and no score counts."""


@dataclass(frozen=True)
class Sample:
    """One image as decoded from disk.

    Attributes:
        image: RGB, uint8, shape (height, width, 3).
        label: train ids of the recipe's label space, uint8, shape (height, width); None for a target.
        name: what to call the sample in messages, usually the path of its image.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | None
    name: str


@dataclass(frozen=True)
class Batch:
    """The crops of one training step, paired by position: row i of the source with row i of the target.

    Attributes:
        source_image: RGB, shape (batch, 3, height, width); uint8 from the loader, float32 in [0, 1] on the device.
        source_label: shape (batch, height, width); uint8 from the loader, int64 on the device; 255 = ignore.
        target_image: like ``source_image``.
    """

    source_image: torch.Tensor
    source_label: torch.Tensor
    target_image: torch.Tensor

    def on(self, device: torch.device) -> "Batch":
        """Move to ``device`` as uint8 (a quarter of the bytes) and convert there."""
        return Batch(
            as_unit_float(self.source_image.to(device, non_blocking=True)),
            self.source_label.to(device, non_blocking=True).long(),
            as_unit_float(self.target_image.to(device, non_blocking=True)),
        )

    def pin_memory(self) -> "Batch":
        """Page-locked copy, called by torch's DataLoader, so that ``on`` can copy asynchronously."""
        return Batch(self.source_image.pin_memory(), self.source_label.pin_memory(), self.target_image.pin_memory())


def as_unit_float(image: torch.Tensor) -> torch.Tensor:
    """uint8 image in [0, 255] to float32 in [0, 1]; the shape is kept."""
    return image.float().div_(255.0)
