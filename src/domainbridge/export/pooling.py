"""Adaptive pooling for graphs of any size: exporters would fix its windows to those of the traced size."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["SizeFreePooling", "pool"]


class SizeFreePooling(TorchFunctionMode):
    """Inside the block, ``F.adaptive_avg_pool2d`` to several cells is :func:`pool`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of each of its functions."""
        if func is F.adaptive_avg_pool2d and not kwargs and args[1] not in (1, (1, 1)):
            return pool(*args)
        return func(*args, **(kwargs or {}))


def pool(maps: Tensor, cells: int | tuple[int, int]) -> Tensor:
    """``F.adaptive_avg_pool2d`` as two products of matrices: (batch, channels, h, w) to (batch, channels, *cells)."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    return _means(maps.shape[-2], rows, maps) @ maps @ _means(maps.shape[-1], columns, maps).T


def _means(length: int, cells: int, like: Tensor) -> Tensor:
    """(cells, length): row i averages from floor(i * length / cells) to before ceil((i + 1) * length / cells)."""
    numbers = torch.arange(cells, device=like.device)
    first = (numbers * length) // cells
    end = ((numbers + 1) * length + cells - 1) // cells
    positions = torch.arange(length, device=like.device)
    inside = ((positions >= first[:, None]) & (positions < end[:, None])).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)
