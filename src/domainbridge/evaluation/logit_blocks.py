"""Logits at the size of the result, a block of pixels at a time, so that an image of any size needs bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.evaluation.windows import Box, Windows
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import to_device
from domainbridge.ops.upsample import LazyUpsample, interpolation_matrix, interpolation_rows, row_chunks, source_rows
from domainbridge.types import as_unit_float

__all__ = ["Network", "blocks_in_one_piece", "blocks_in_windows"]

_VALUES = 2**23
"""Logits at full width that are kept at a time, 32 MiB."""
_ROWS, _COLUMNS = 64, 1024
"""Size of a block of an image in windows."""
_PIXELS_AT_ONCE = 4 * 512 * 512
"""Pixels of the windows that go through the network together."""

Image = NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class Network:
    """A network and how crops pass it.

    Attributes:
        model: in evaluation mode.
        device: the model's.
        precision: of the forward pass: float32, or bfloat16 and float16 under autocast. Logits are float32.
    """

    model: Segmenter
    device: torch.device
    precision: str = "float32"

    def logits(self, crops: Sequence[Image], *, mirror: bool) -> Tensor:
        """Logits at the head's resolution, float32 (batch, classes, h, w), of crops of one size.

        ``mirror``: of the mirrored crops, mirrored back.
        """
        batch = torch.from_numpy(np.stack([crop.transpose(2, 0, 1) for crop in crops]))
        tensor = as_unit_float(to_device(batch, self.device))
        low = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision)) if low else nullcontext():
            output = self.model(tensor.flip(3) if mirror else tensor)
        logits: Tensor = output.logits.float()
        return logits.flip(3) if mirror else logits


def blocks_in_windows(
    network: Network, image: Image, size: Size, windows: Windows, mirrors: Sequence[bool]
) -> Iterator[tuple[Box, list[Tensor]]]:
    """Boxes that cover the result once, with their logits, of an image in windows.

    Args:
        network: see there.
        image: RGB, uint8 (height, width, 3), at the network's input size.
        size: (height, width) of the result. Logits go to the input size first, then to this one.
        windows: of the image.
        mirrors: for each pass, whether it is that of the mirrored image.

    Yields:
        A box of the result, and float32 (classes, *box.size) of each pass.
    """
    tall, wide = _block_size(image.shape[:2], size)
    for number, part in enumerate(windows.parts):
        goal = _scaled(part, image.shape[:2], size)
        if 0 in goal.size:
            continue
        needed = _needed(goal, image.shape[:2], size)
        sources = [
            _Views(network, image, windows.views_of(number, needed, mirror=mirror), size, mirror=mirror)
            for mirror in mirrors
        ]
        for left in range(goal.left, goal.right, wide):
            for top in range(goal.top, goal.bottom, tall):
                box = Box(top, min(top + tall, goal.bottom), left, min(left + wide, goal.right))
                yield box, [source.block(box) for source in sources]


def blocks_in_one_piece(passes: Sequence[Tensor], input_size: Size, size: Size) -> Iterator[tuple[Box, list[Tensor]]]:
    """Boxes that cover the result once, with their logits, of an image that passed the network in one piece.

    Args:
        passes: logits of each pass, float32 (1, classes, h, w).
        input_size: (height, width) of the image at the network.
        size: (height, width) of the result.
    """
    _, classes, height, _ = passes[0].shape
    step = max(_VALUES // (classes * max(height, _ROWS)), _ROWS)
    for left in range(0, size[1], step):
        columns = slice(left, min(left + step, size[1]))
        lazy = [LazyUpsample(logits, input_size, size, columns=columns) for logits in passes]
        for rows in row_chunks(size[0]):
            yield Box(rows.start, rows.stop, columns.start, columns.stop), [logits.rows(rows)[0] for logits in lazy]


class _Views:
    """Logits of some windows, kept at the head's resolution."""

    def __init__(self, network: Network, image: Image, views: Sequence[Box], size: Size, *, mirror: bool) -> None:
        """Put the windows through the network; ``mirror``: those of the mirrored image, mirrored back."""
        self.input: Size = (image.shape[0], image.shape[1])
        self.size = size
        self.pieces: list[tuple[Box, Tensor]] = []
        for (tall, wide), group in groupby(views, lambda view: view.size):
            same = list(group)
            count = max(_PIXELS_AT_ONCE // (tall * wide), 1)
            for some in (same[first : first + count] for first in range(0, len(same), count)):
                crops = [image[view.top : view.bottom, view.left : view.right] for view in some]
                self.pieces += zip(some, network.logits(crops, mirror=mirror), strict=True)

    def block(self, box: Box) -> Tensor:
        """Float32 (classes, *box.size)."""
        if self.size == self.input:
            return self._averaged(box)
        rows, needed_rows = self._interpolation(0, slice(box.top, box.bottom))
        columns, needed_columns = self._interpolation(1, slice(box.left, box.right))
        needed = Box(needed_rows.start, needed_rows.stop, needed_columns.start, needed_columns.stop)
        return rows @ self._averaged(needed) @ columns.T

    def _interpolation(self, axis: int, pixels: slice) -> tuple[Tensor, slice]:
        return interpolation_rows((self.size[axis], self.input[axis]), pixels, self.pieces[0][1].device)

    def _averaged(self, box: Box) -> Tensor:
        """The mean of the windows at a box of the input, float32 (classes, *box.size)."""
        first = self.pieces[0][1]
        total = first.new_zeros(len(first), *box.size)
        visits = first.new_zeros(box.size)
        for view, logits in self.pieces:
            if not view.meets(box):
                continue
            both = view.common(box)
            rows, cells = _matrix(logits, 1, view.size, slice(both.top - view.top, both.bottom - view.top))
            columns, across = _matrix(logits, 2, view.size, slice(both.left - view.left, both.right - view.left))
            place = (
                slice(both.top - box.top, both.bottom - box.top),
                slice(both.left - box.left, both.right - box.left),
            )
            total[(slice(None), *place)] += rows @ logits[:, cells, across] @ columns.T
            visits[place] += 1
        averaged: Tensor = total / visits
        return averaged


def _matrix(logits: Tensor, axis: int, size: Size, pixels: slice) -> tuple[Tensor, slice]:
    """From the cells of a window's logits to some of its pixels along an axis, and the cells."""
    shape = (size[axis - 1], logits.shape[axis])
    cells = source_rows(shape, pixels)
    return interpolation_matrix(shape[1], shape[0], logits.device)[pixels, cells], cells


def _block_size(shape: tuple[int, ...], size: Size) -> Size:
    """Rows and columns of a block of the result: fewer where several pixels of the input lead to one of the result."""
    tall, wide = min(1.0, size[0] / shape[0]), min(1.0, size[1] / shape[1])
    return max(int(_ROWS * tall), 1), max(int(_COLUMNS * wide), 1)


def _scaled(part: Box, shape: tuple[int, ...], size: Size) -> Box:
    """The part of the result that a part of the input gives; the parts of the result do not overlap either."""
    height, width = shape
    top, bottom = (round(border * size[0] / height) for border in (part.top, part.bottom))
    left, right = (round(border * size[1] / width) for border in (part.left, part.right))
    return Box(top, bottom, left, right)


def _needed(goal: Box, shape: tuple[int, ...], size: Size) -> Box:
    """The pixels of the input that a box of the result is interpolated from."""
    rows = source_rows((size[0], shape[0]), slice(goal.top, goal.bottom))
    columns = source_rows((size[1], shape[1]), slice(goal.left, goal.right))
    return Box(rows.start, rows.stop, columns.start, columns.stop)
