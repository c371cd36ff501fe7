"""Logits at the size of the result, a block of pixels at a time, so that an image of any size needs bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.evaluation.segmentation_model import WindowedImage
from domainbridge.evaluation.windows import LEAST, Box, Windows
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import to_device
from domainbridge.ops.upsample import LazyUpsample, interpolation_matrix, interpolation_rows, row_chunks, source_rows
from domainbridge.types import as_unit_float

__all__ = ["Blocks", "Network", "blocks_in_one_piece", "parts_in_windows"]

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


Blocks = Iterator[tuple[Box, list[Tensor]]]
"""Boxes that cover a part of the result once, with float32 (classes, *box.size) of each pass."""


def parts_in_windows(
    network: Network, image: WindowedImage, size: Size, windows: Windows, mirrors: Sequence[bool]
) -> Iterator[tuple[Box, Blocks]]:
    """The parts of the result of an image in windows, row by row, each with the logits of its blocks.

    Args:
        network: see there.
        image: RGB, uint8 (height, width, 3), at the network's input size; or what reads such windows from a file.
        size: (height, width) of the result. Logits go to the input size first, then to this one.
        windows: of the image.
        mirrors: for each pass, whether it is that of the mirrored image.

    Yields:
        A box of the result, and its blocks, which are to be used before the next part is asked for.
    """
    shape = image.shape[0], image.shape[1]
    kept = _KeptViews(network, image, size, windows, mirrors)
    for number, part in enumerate(windows.parts):
        goal = _scaled(part, shape, size)
        if 0 in goal.size:
            continue
        needed = _needed(goal, shape, size)
        if windows.context:
            sources = kept.sources(number, needed)
        else:
            seen = [_seen(network, image, windows.mean_views(needed, mirror=mirror), mirror) for mirror in mirrors]
            sources = [_Views(pieces, shape, size) for pieces in seen]
        yield goal, _blocks(sources, goal, _block_size(shape, size))
        kept.forget(number)


def _blocks(sources: "Sequence[_Views]", goal: Box, block: Size) -> Blocks:
    tall, wide = block
    for left in range(goal.left, goal.right, wide):
        for top in range(goal.top, goal.bottom, tall):
            box = Box(top, min(top + tall, goal.bottom), left, min(left + wide, goal.right))
            yield box, [source.block(box) for source in sources]


def blocks_in_one_piece(passes: Sequence[Tensor], input_size: Size, size: Size, rows: slice | None = None) -> Blocks:
    """The blocks of the result, or of some of its rows, of an image that passed the network in one piece.

    Args:
        passes: logits of each pass, float32 (1, classes, h, w).
        input_size: (height, width) of the image at the network.
        size: (height, width) of the result.
        rows: of the result; default: all.
    """
    _, classes, height, _ = passes[0].shape
    rows = rows or slice(0, size[0])
    step = max(_VALUES // (classes * max(height, _ROWS)), _ROWS)
    for left in range(0, size[1], step):
        columns = slice(left, min(left + step, size[1]))
        lazy = [LazyUpsample(logits, input_size, size, columns=columns) for logits in passes]
        for some in row_chunks(rows.stop - rows.start):
            box = Box(rows.start + some.start, rows.start + some.stop, columns.start, columns.stop)
            yield box, [logits.rows(slice(box.top, box.bottom))[0] for logits in lazy]


@dataclass(frozen=True)
class _Piece:
    """Logits of a window, kept at the head's resolution.

    Attributes:
        view: the window.
        logits: float32 (classes, h, w), or the lowest rows of them.
        cells: h, of the whole window.
        weights: of the window at the rows and columns of a box; None: 1 everywhere.
    """

    view: Box
    logits: Tensor
    cells: int
    weights: Callable[[Box], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None

    def below(self, top: int) -> "_Piece":
        """The piece without the rows that only pixels above ``top`` are interpolated from."""
        rows = source_rows((self.view.size[0], self.cells), slice(max(top - self.view.top, 0), self.view.size[0]))
        return replace(self, logits=self.logits[:, rows.start - self.cells :].clone())

    def at(self, box: Box) -> Tensor:
        """Float32 (classes, *box.size); the box lies inside the window."""
        tall, wide = self.view.size
        shapes = (tall, self.cells), (wide, self.logits.shape[2])
        rows, cells = _matrix(shapes[0], slice(box.top - self.view.top, box.bottom - self.view.top), self.logits.device)
        columns, across = _matrix(
            shapes[1], slice(box.left - self.view.left, box.right - self.view.left), self.logits.device
        )
        missing = self.cells - self.logits.shape[1]
        logits: Tensor = rows @ self.logits[:, cells.start - missing : cells.stop - missing, across] @ columns.T
        return logits

    def counts(self, box: Box) -> bool:
        """Whether the window has more than the least weight somewhere in the box."""
        return self.weights is None or all(each.max() > LEAST for each in self.weights(box))

    def weight(self, box: Box) -> Tensor | None:
        """Float32 box.size; None: 1 everywhere."""
        if self.weights is None:
            return None
        down, across = (torch.from_numpy(each).to(self.logits.device) for each in self.weights(box))
        return None if (down == 1).all() and (across == 1).all() else down[:, None] * across


def _seen(network: Network, image: WindowedImage, views: Sequence[Box], mirror: bool) -> list[_Piece]:
    """Windows put through the network, some at a time; ``mirror``: those of the mirrored image, mirrored back."""
    pieces: list[_Piece] = []
    for (tall, wide), group in groupby(views, lambda view: view.size):
        same = list(group)
        count = max(_PIXELS_AT_ONCE // (tall * wide), 1)
        for some in (same[first : first + count] for first in range(0, len(same), count)):
            crops = [image[view.top : view.bottom, view.left : view.right] for view in some]
            logits = network.logits(crops, mirror=mirror)
            pieces += (_Piece(view, each, each.shape[1]) for view, each in zip(some, logits, strict=True))
    return pieces


class _KeptViews:
    """Windows with context that later parts still need: about one row of windows, of each its lower border."""

    def __init__(
        self, network: Network, image: WindowedImage, size: Size, windows: Windows, mirrors: Sequence[bool]
    ) -> None:
        self.network, self.image, self.size, self.windows, self.mirrors = network, image, size, windows, mirrors
        self.pieces: dict[int, list[_Piece]] = {}

    def sources(self, number: int, needed: Box) -> "list[_Views]":
        """For each pass, the views of a part."""
        positions = self.windows.faded_views(number, needed)
        for position in positions:
            if position not in self.pieces:
                self.pieces[position] = [self._see(position, mirror) for mirror in self.mirrors]
        shape = self.image.shape[0], self.image.shape[1]
        every = zip(*(self.pieces[position] for position in positions), strict=True)
        return [_Views(list(pieces), shape, self.size) for pieces in every]

    def _see(self, position: int, mirror: bool) -> _Piece:
        (piece,) = _seen(self.network, self.image, [self.windows.views[position]], mirror)
        return replace(piece, weights=partial(self.windows.weights, position))

    def forget(self, number: int) -> None:
        """Drop what no part after this one needs."""
        if self.windows.fades is None:
            return
        rows, columns = self.windows.fades
        across = len(columns.borders) - 1
        row, column = divmod(number, across)
        last = column + 1 == across
        for position in (number - across - 1, *((number - across,) if last else ())):
            self.pieces.pop(position, None)
        reduced = -(-self.image.shape[0] // self.size[0])
        lower = rows.borders[row + 1] - rows.reach - 2 * reduced
        for position in (*((number - 1,) if column else ()), *((number,) if last else ())):
            if position in self.pieces:
                self.pieces[position] = [piece.below(lower) for piece in self.pieces[position]]


class _Views:
    """Logits of some windows of an image, at any pixels of the result."""

    def __init__(self, pieces: Sequence[_Piece], shape: Size, size: Size) -> None:
        self.pieces, self.input, self.size = pieces, shape, size

    def block(self, box: Box) -> Tensor:
        """Float32 (classes, *box.size)."""
        if self.size == self.input:
            return self._averaged(box)
        rows, needed_rows = self._interpolation(0, slice(box.top, box.bottom))
        columns, needed_columns = self._interpolation(1, slice(box.left, box.right))
        needed = Box(needed_rows.start, needed_rows.stop, needed_columns.start, needed_columns.stop)
        return rows @ self._averaged(needed) @ columns.T

    def _interpolation(self, axis: int, pixels: slice) -> tuple[Tensor, slice]:
        return interpolation_rows((self.size[axis], self.input[axis]), pixels, self.pieces[0].logits.device)

    def _averaged(self, box: Box) -> Tensor:
        """The mean of the windows at a box of the input, float32 (classes, *box.size)."""
        meeting = [(piece, piece.view.common(box)) for piece in self.pieces if piece.view.meets(box)]
        meeting = [(piece, both) for piece, both in meeting if piece.counts(both)] or meeting
        if len(meeting) == 1 and meeting[0][1] == box:
            return meeting[0][0].at(box)
        first = self.pieces[0].logits
        total = first.new_zeros(len(first), *box.size)
        visits = first.new_zeros(box.size)
        for piece, both in meeting:
            place = (
                slice(both.top - box.top, both.bottom - box.top),
                slice(both.left - box.left, both.right - box.left),
            )
            weight = piece.weight(both)
            logits = piece.at(both)
            total[(slice(None), *place)] += logits if weight is None else logits * weight
            visits[place] += 1 if weight is None else weight
        averaged: Tensor = total / visits
        return averaged


def _matrix(shape: Size, pixels: slice, device: torch.device) -> tuple[Tensor, slice]:
    """From the cells of a window's logits to some of its pixels along an axis (pixels, cells), and the cells."""
    cells = source_rows(shape, pixels)
    return interpolation_matrix(shape[1], shape[0], device)[pixels, cells], cells


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
