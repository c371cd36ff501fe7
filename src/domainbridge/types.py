"""The two values that pass between rooms: one decoded sample, and one batch of crops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # images and labels are used where torch is not installed too
    import torch

__all__ = ["IGNORE", "Batch", "Rows", "Sample"]

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


class Sliceable(Protocol):
    """What has a row per sample."""

    def __getitem__(self, rows: slice, /) -> Self:
        """Some of the rows."""
        ...


Draws = TypeVar("Draws", bound=Sliceable)


@dataclass(frozen=True)
class Rows:
    """Which rows of a step's whole batch are here; the others are with other processes.

    Draws are made for the whole batch and each process keeps its own rows, so that the number of processes
    changes no draw.

    Attributes:
        first: of them.
        count: how many.
        total: of the whole batch.
    """

    first: int
    count: int
    total: int

    @classmethod
    def whole(cls, batch: int) -> Rows:
        """All rows of a batch."""
        return cls(0, batch, batch)

    def of(self, draws: Draws) -> Draws:
        """The own rows of draws for the whole batch."""
        return draws[self.first : self.first + self.count]


@dataclass(frozen=True)
class Batch:
    """The crops of one training step, paired by position: row i of the source with row i of the target.

    Attributes:
        source_image: RGB, shape (batch, 3, height, width); uint8 from the loader, float32 in [0, 1] on the device.
        source_label: shape (batch, height, width); uint8 from the loader, int64 on the device; 255 = ignore.
        target_image: like ``source_image``.
        rows: which rows of the whole batch these are; None: all of them.
        target_domain: name of the target that each row of ``target_image`` comes from; (): not told.
    """

    source_image: torch.Tensor
    source_label: torch.Tensor
    target_image: torch.Tensor
    rows: Rows | None = None
    target_domain: tuple[str, ...] = ()

    @property
    def place(self) -> Rows:
        """Which rows of the whole batch these are."""
        return self.rows or Rows.whole(len(self.source_image))

    def parts(self, count: int) -> list[Batch]:
        """The same rows in ``count`` batches of equal size."""
        place = self.place
        assert place.count % count == 0, f"{place.count} rows in {count} parts"
        size = place.count // count
        slices = [slice(number * size, (number + 1) * size) for number in range(count)]
        return [
            Batch(
                self.source_image[rows],
                self.source_label[rows],
                self.target_image[rows],
                Rows(place.first + rows.start, size, place.total),
                self.target_domain[rows],
            )
            for rows in slices
        ]

    def on(self, device: torch.device) -> Batch:
        """Move to ``device`` as uint8 (a quarter of the bytes) and convert there."""
        return replace(
            self,
            source_image=as_unit_float(self.source_image.to(device, non_blocking=True)),
            source_label=self.source_label.to(device, non_blocking=True).long(),
            target_image=as_unit_float(self.target_image.to(device, non_blocking=True)),
        )

    def pin_memory(self) -> Batch:
        """Page-locked copy, called by torch's DataLoader, so that ``on`` can copy asynchronously."""
        image, label, target = self.source_image, self.source_label, self.target_image
        return replace(
            self, source_image=image.pin_memory(), source_label=label.pin_memory(), target_image=target.pin_memory()
        )


def as_unit_float(image: torch.Tensor) -> torch.Tensor:
    """uint8 image in [0, 255] to float32 in [0, 1]; the shape is kept."""
    return image.float().div_(255.0)
