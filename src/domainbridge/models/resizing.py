"""The one way in which maps are enlarged: bilinear, corners not aligned; whole, or a few rows at a time."""

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Enlarged", "interpolation_matrix", "row_strips", "touched_cells", "upsample"]

_STRIP = 64
"""Rows of pixels at a time: few enough for a processor's cache, enough to fill a GPU."""


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, channels, h, w) to (batch, channels, *size)."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=16)
def interpolation_matrix(cells: int, pixels: int, device: torch.device) -> Tensor:
    """The enlargement along one axis, float32 (pixels, cells): rows that sum to 1, of at most two neighbours each."""
    identity = torch.eye(cells, device=device)[:, None]
    return F.interpolate(identity, pixels, mode="linear", align_corners=False)[:, 0].T.contiguous()


class Enlarged:
    """Maps that would be enlarged, kept small and read a few rows at a time.

    Only the columns are enlarged at once; of the rows, each reading makes those that it is asked for.
    """

    def __init__(self, maps: Tensor, *sizes: tuple[int, int]) -> None:
        """Enlarge along the width.

        Args:
            maps: float32 (batch, channels, h, w).
            sizes: (height, width) to enlarge to, one after the other; two steps are not the same as one.
        """
        height, width = maps.shape[-2:]
        rows = columns = None
        self.bounds = []
        for size in sizes:
            rows = _after(rows, interpolation_matrix(height, size[0], maps.device))
            columns = _after(columns, interpolation_matrix(width, size[1], maps.device))
            self.bounds.append((size[0], height))
            height, width = size
        assert rows is not None
        assert columns is not None
        self.matrix, self.wide = rows, maps @ columns.T

    def rows(self, rows: slice) -> Tensor:
        """Rows of the enlarged maps, (batch, channels, number of rows, width)."""
        cells = rows
        for shape in reversed(self.bounds):
            cells = touched_cells(shape, cells)
        return self.matrix[rows, cells] @ self.wide[..., cells, :]


def touched_cells(shape: tuple[int, ...], rows: slice) -> slice:
    """The cells that rows of an interpolation matrix of ``shape`` (pixels, cells) read from."""
    pixels, cells = shape
    first, last = ((row + 0.5) * cells / pixels - 0.5 for row in (rows.start, rows.stop - 1))
    return slice(max(math.floor(first), 0), min(math.floor(last) + 2, cells))


def row_strips(height: int) -> Iterator[slice]:
    """The rows of an image, some at a time, from top to bottom."""
    for top in range(0, height, _STRIP):
        yield slice(top, min(top + _STRIP, height))


def _after(first: Tensor | None, second: Tensor) -> Tensor:
    """One interpolation matrix for two steps."""
    return second if first is None else second @ first
