"""Padding as arithmetic, for graphs in which the size of an image is a symbol and nothing can be tried."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domainbridge.errors import ModelError
from domainbridge.models.backbones.padding import GRIDS, maps_without_values, takes

__all__ = ["TraceablePadding", "traceable_padding"]


class TraceablePadding:
    """The padding that the trials of :class:`domainbridge.models.backbones.padding.Padding` lead to.

    Attributes:
        grid: sides that are multiples of it are taken; None: every image is, from ``smallest_side`` on.
        slack: a side that lacks at most so many pixels to the next multiple is taken too.
        strides: of the backbone's maps.
        smallest_side: pixels of the shortest side for which the rule holds.
    """

    def __init__(self, grid: int | None, slack: int, strides: tuple[int, ...], smallest_side: int) -> None:
        self.grid, self.slack, self.strides, self.smallest_side = grid, slack, strides, smallest_side

    def __call__(self, body: nn.Module, image: Tensor) -> Tensor:
        """As for ``Padding``."""
        if self.grid is None:
            return image
        # Whole numbers above 0 only: ONNX divides towards 0, Python downwards.
        missing = [(self.grid - side % self.grid) % self.grid for side in image.shape[-2:]]
        # 1 where a side lacks more than the slack, else 0; then 1 if one of the two sides does.
        refused = [(pixels + self.grid - 1 - self.slack) // self.grid for pixels in missing]
        either = (refused[0] + refused[1] + 1) // 2
        for axis in (-2, -1):
            image = _with_zeros(image, axis, missing[axis] * either)
        return image

    def cropped(self, maps: Sequence[Tensor], padded: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """As for ``Padding``; of all maps, or of the first and the last one."""
        strides = self.strides if len(maps) == len(self.strides) else (self.strides[0], self.strides[-1])
        return tuple(
            _first(_first(each, -2, (size[0] + stride - 1) // stride), -1, (size[1] + stride - 1) // stride)
            for each, stride in zip(maps, strides, strict=True)
        )


def traceable_padding(body: nn.Module, strides: Sequence[int] = ()) -> TraceablePadding:
    """The rule for a backbone's extractor.

    Args:
        body: see there.
        strides: of its maps, which must have as many cells as the image has strides; none: not compared.

    Raises:
        ModelError: the sizes that the extractor takes follow no such rule.
    """

    def taken(height: int, width: int) -> bool:
        return takes(body, height, width, strides)

    grid = next((grid for grid in GRIDS if all(taken(grid * n, grid * m) for n, m in ((1, 1), (2, 3)))), None)
    if grid is None:
        raise ModelError("the backbone takes no multiples of the usual sizes, so that no rule for its padding is known")
    maps = maps_without_values(body, 2 * grid, 2 * grid)
    real = tuple(2 * grid // each.shape[-1] for each in maps)
    smallest = max(grid, 2 * max(real))  # torch.export takes maps of one cell for constants
    missing = [pixels for pixels in range(grid) if taken(3 * grid - pixels, 2 * grid)]
    if len(missing) == grid:
        return TraceablePadding(None, 0, real, smallest)
    slack = next(pixels for pixels in range(grid) if pixels + 1 not in missing)
    if missing != list(range(slack + 1)):
        raise ModelError(f"the backbone takes sides of {[3 * grid - pixels for pixels in missing]}, which is no rule")
    return TraceablePadding(grid, slack, real, smallest)


def _with_zeros(image: Tensor, axis: int, count: int) -> Tensor:
    """``F.pad`` at one end of an axis; a graph would take its case of no padding for a constant."""
    side = image.shape[axis]
    positions = torch.arange(side + count, device=image.device)
    inside = (positions < side).to(image.dtype).view((-1, 1) if axis == -2 else (-1,))
    return image.index_select(axis, positions.clamp_max(side - 1)) * inside


def _first(maps: Tensor, axis: int, count: int) -> Tensor:
    """A slice; a graph would take the case that nothing is left out for a constant."""
    return maps.index_select(axis, torch.arange(count, device=maps.device))
