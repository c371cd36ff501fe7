"""Logits of windows, kept at the head's resolution, at any pixels of the result."""

import math
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.evaluation.windows import LEAST, Box
from domainbridge.ops.upsample import interpolation_matrix, interpolation_rows, source_rows

__all__ = ["Piece", "Views", "apart", "empty_apart", "needed_box", "scaled_box"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Piece:
    """Logits of a window, kept at the head's resolution.

    Attributes:
        view: the window.
        covered: (height, width) that all logits of the window cover, from its top and left.
        logits: float32 (classes, h, w), or some rows of them.
        cells: h, of the whole window.
        first: row of cells that ``logits`` begins with.
        part: what the rows of ``logits`` are enough for; the window, or a part of it.
        weights: of the window at the rows and columns of a box; None: 1 everywhere.
    """

    view: Box
    covered: Size
    logits: Tensor
    cells: int
    first: int
    part: Box
    weights: Callable[[Box], tuple[NDArray[np.float32], NDArray[np.float32]]] | None = None

    def between(self, top: int, bottom: int) -> "Piece":
        """The piece with the rows alone that pixels from ``top`` to before ``bottom`` are interpolated from."""
        part = self.part.common(Box(top, bottom, self.view.left, self.view.right))
        pixels = slice(part.top - self.view.top, part.bottom - self.view.top)
        rows = source_rows((self.covered[0], self.cells), pixels)
        logits = self.logits[:, rows.start - self.first : rows.stop - self.first]
        return replace(self, logits=apart(logits), first=rows.start, part=part)

    def at(self, box: Box) -> Tensor:
        """Float32 (classes, *box.size); the box lies inside ``part``."""
        tall, wide = self.covered
        shapes = (tall, self.cells), (wide, self.logits.shape[2])
        rows, cells = _matrix(shapes[0], slice(box.top - self.view.top, box.bottom - self.view.top), self.logits.device)
        columns, across = _matrix(
            shapes[1], slice(box.left - self.view.left, box.right - self.view.left), self.logits.device
        )
        logits: Tensor = rows @ self.logits[:, cells.start - self.first : cells.stop - self.first, across] @ columns.T
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


def apart(values: Tensor) -> Tensor:
    """A copy; see :func:`empty_apart`."""
    return empty_apart(values.shape, values.dtype, values.device).copy_(values)


def empty_apart(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor without values; on a CPU outside of the memory that activations take from and give back to.

    What stays there while the next window passes the network would split that memory, which would then grow.
    """
    count = math.prod(shape)
    if device.type != "cpu" or not count:
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype).view(tuple(shape))


class Views:
    """Logits of some windows of an image, at any pixels of the result."""

    def __init__(self, pieces: Sequence[Piece], shape: Size, size: Size) -> None:
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
        meeting = [(piece, piece.part.common(box)) for piece in self.pieces if piece.part.meets(box)]
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


def scaled_box(part: Box, shape: tuple[int, ...], size: Size) -> Box:
    """The part of the result that a part of the input gives; the parts of the result do not overlap either."""
    height, width = shape
    top, bottom = (round(border * size[0] / height) for border in (part.top, part.bottom))
    left, right = (round(border * size[1] / width) for border in (part.left, part.right))
    return Box(top, bottom, left, right)


def needed_box(goal: Box, shape: tuple[int, ...], size: Size) -> Box:
    """The pixels of the input that a box of the result is interpolated from."""
    rows = source_rows((size[0], shape[0]), slice(goal.top, goal.bottom))
    columns = source_rows((size[1], shape[1]), slice(goal.left, goal.right))
    return Box(rows.start, rows.stop, columns.start, columns.stop)


def _matrix(shape: Size, pixels: slice, device: torch.device) -> tuple[Tensor, slice]:
    """From the cells of a window's logits to some of its pixels along an axis (pixels, cells), and the cells."""
    cells = source_rows(shape, pixels)
    return interpolation_matrix(shape[1], shape[0], device)[pixels, cells], cells
