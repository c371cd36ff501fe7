"""Functions that are traced otherwise than they run, with the same values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["TracedFunctions", "pool"]


class TracedFunctions(TorchFunctionMode):
    """Inside the block, three of torch's functions leave another trace.

    - The result of ``F.scaled_dot_product_attention`` has the memory layout of its shape. The CPU's kernel gives a
      transposed layout, so that a reshaping that follows is traced as a view. In ONNX the result has the usual layout,
      and the exporter refuses that view (MaxViT).
    - ``F.interpolate`` to the size that maps have gives these maps: timm resamples embeddings of that size too.
    - ``F.adaptive_avg_pool2d`` to several cells is :func:`pool`: exporters would fix its windows to those of the traced
      size.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of each of its functions."""
        given = kwargs or {}
        if func is F.adaptive_avg_pool2d and not given and args[1] not in (1, (1, 1)):
            return pool(*args)
        if func is F.interpolate and _stays(args[0], given.get("size")):
            return args[0]
        result = func(*args, **given)
        return result.contiguous() if func is F.scaled_dot_product_attention else result


def _stays(maps: Tensor, size: Any) -> bool:
    """Whether maps (batch, channels, h, w) of constant size have the size that they get."""
    sides = *maps.shape[2:], *(size if isinstance(size, tuple | list) else ())
    return len(sides) == 4 and all(type(side) is int for side in sides) and sides[:2] == sides[2:]


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
