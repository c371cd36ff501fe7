"""Bilinear upsampling with ``align_corners=False``, the only one used here: whole, or a few rows at a time."""

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LazyUpsample", "interpolation_matrix", "interpolation_rows", "row_chunks", "source_rows", "upsample"]

_CHUNK = 64
"""Rows of pixels at a time: few enough for a processor's cache, enough to fill a GPU."""


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, channels, h, w) to (batch, channels, *size)."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=16)
def interpolation_matrix(cells: int, pixels: int, device: torch.device) -> Tensor:
    """The upsampling along one axis, float32 (pixels, cells): rows that sum to 1, of at most two neighbors each."""
    identity = torch.eye(cells, device=device)[:, None]
    return F.interpolate(identity, pixels, mode="linear", align_corners=False)[:, 0].T.contiguous()


class LazyUpsample:
    """Upsampled maps that are kept small and read a few rows at a time.

    The width is upsampled at once; each call of :meth:`rows` upsamples the height for the rows that it returns.
    """

    def __init__(
        self,
        maps: Tensor,
        *sizes: tuple[int, int],
        covered: tuple[int, int] | None = None,
        columns: slice = slice(None),
    ) -> None:
        """Upsample along the width.

        Args:
            maps: float32 (batch, channels, h, w).
            sizes: (height, width) to upsample to, one after the other; two steps are not the same as one.
            covered: (height, width) that the maps cover, of which the first size is the upper left part; default: the
                first size.
            columns: of the upsampled maps, to be kept; all of them where nothing is said.
        """
        height, width = maps.shape[-2:]
        rows = across = None
        self.bounds = []
        for number, size in enumerate(sizes):
            if number and size == (height, width):
                continue
            tall, wide = size if number or covered is None else covered
            rows = _after(rows, interpolation_matrix(height, tall, maps.device)[: size[0]])
            across = _after(across, interpolation_matrix(width, wide, maps.device)[: size[1]])
            self.bounds.append((tall, height))
            height, width = size
        assert rows is not None
        assert across is not None
        self.matrix, self.upsampled_width = rows, maps @ across[columns].T

    def rows(self, rows: slice) -> Tensor:
        """Rows of the upsampled maps, (batch, channels, number of rows, width)."""
        cells = rows
        for shape in reversed(self.bounds):
            cells = source_rows(shape, cells)
        return self.matrix[rows, cells] @ self.upsampled_width[..., cells, :]


def interpolation_rows(shape: tuple[int, int], rows: slice, device: torch.device) -> tuple[Tensor, slice]:
    """Some rows of an interpolation matrix of ``shape`` (pixels, cells), without the whole of it.

    Returns:
        float32 (number of rows, number of cells), and the cells that its columns stand for.
    """
    pixels, cells = shape
    needed = source_rows(shape, rows)
    # (row + 0.5) * cells / pixels - 0.5 as a fraction of whole numbers: a rounded one may fall below its cell.
    halves = (2 * torch.arange(rows.start, rows.stop, device=device) + 1) * cells - pixels
    halves = halves.clamp(0, 2 * pixels * (cells - 1))
    below = halves // (2 * pixels)
    matrix = torch.zeros(len(halves), needed.stop - needed.start, device=device)
    share = ((halves - below * 2 * pixels).double() / (2 * pixels)).float()[:, None]
    first = (below - needed.start)[:, None]
    second = (first + 1).clamp_max(needed.stop - needed.start - 1)
    matrix.scatter_add_(1, first, 1 - share)
    matrix.scatter_add_(1, second, share)
    return matrix, needed


def source_rows(shape: tuple[int, ...], rows: slice) -> slice:
    """The cells that rows of an interpolation matrix of ``shape`` (pixels, cells) read from."""
    pixels, cells = shape
    first, last = (((2 * row + 1) * cells - pixels) // (2 * pixels) for row in (rows.start, rows.stop - 1))
    return slice(max(first, 0), min(last + 2, cells))


def row_chunks(height: int) -> Iterator[slice]:
    """The rows of an image, some at a time, from top to bottom."""
    for top in range(0, height, _CHUNK):
        yield slice(top, min(top + _CHUNK, height))


def _after(first: Tensor | None, second: Tensor) -> Tensor:
    """One interpolation matrix for two steps."""
    return second if first is None else second @ first
