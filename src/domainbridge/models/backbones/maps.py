"""Feature maps: in the usual axis order, cropped to an image, and moved to another stride."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["at_stride", "cells", "cropped", "fits", "maps_of"]


def maps_of(body: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """All maps of an extractor, (batch, channels, h, w) each, the finest first.

    timm's windowed transformers give (batch, h, w, channels) and say so.
    """
    maps = tuple(body(image))
    if str(getattr(getattr(body, "output_fmt", None), "value", "")) == "NHWC":
        return tuple(each.permute(0, 3, 1, 2) for each in maps)
    return maps


def cells(side: int, stride: int) -> int:
    """Cells of a map that cover so many pixels."""
    return -(-side // stride)


def fits(maps: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether every map has a cell for each of its strides of the image, the last one begun included.

    Args:
        maps: (batch, channels, h, w) each.
        strides: pixels per cell of each map; none: nothing is known, and every size fits.
        size: height and width of the image.
    """
    if not strides:
        return True
    expected = [tuple(cells(side, stride) for side in size) for stride in strides]
    return [tuple(each.shape[-2:]) for each in maps] == expected


def cropped(maps: Tensor, padded: Tensor, size: tuple[int, int]) -> Tensor:
    """Without the cells that see the padding alone."""
    down, right = (-(-padded.shape[axis] // maps.shape[axis]) for axis in (-2, -1))
    return maps[..., : cells(size[0], down), : cells(size[1], right)]


def at_stride(maps: Tensor, patch: int, stride: int, size: tuple[int, int]) -> Tensor:
    """A map of a patch's stride, moved to another stride by bilinear interpolation; exact where both are the same.

    Cell centers stay where they are in the image: patch 14 to stride 16 shifts nothing, whatever the size. Beyond the
    last cell the map goes on with the last cell's value.

    Args:
        maps: (batch, channels, h, w), whose cells cover ``patch`` pixels each.
        patch: pixels per cell.
        stride: pixels per cell of the result, a power of two.
        size: height and width of the image; at most ``patch`` times the map's.

    Returns:
        (batch, channels, height / stride, width / stride), rounded up.
    """
    rows, columns = (cells(side, stride) for side in size)
    if patch != stride:
        for axis, wanted in ((-2, rows), (-1, columns)):
            missing = cells(wanted * stride, patch) - maps.shape[axis]
            if missing > 0:
                last = maps.narrow(axis, maps.shape[axis] - 1, 1)
                maps = torch.cat([maps, *[last] * missing], axis)
        maps = F.interpolate(
            maps, scale_factor=patch / stride, mode="bilinear", align_corners=False, recompute_scale_factor=False
        )
    return maps[..., :rows, :columns]
