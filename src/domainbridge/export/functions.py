"""Functions that are traced otherwise than they run, with the same values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["TracedFunctions"]


class TracedFunctions(TorchFunctionMode):
    """Inside the block, two of torch's functions leave another trace.

    - The result of ``F.scaled_dot_product_attention`` has the memory layout of its shape. The CPU's kernel gives a
      transposed layout, so that a reshaping that follows is traced as a view. In ONNX the result has the usual layout,
      and the exporter refuses that view (MaxViT).
    - ``F.interpolate`` to the size that maps have gives these maps: timm resamples embeddings of that size too.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of each of its functions."""
        given = kwargs or {}
        if func is F.interpolate and _stays(args[0], given.get("size")):
            return args[0]
        result = func(*args, **given)
        return result.contiguous() if func is F.scaled_dot_product_attention else result


def _stays(maps: Tensor, size: Any) -> bool:
    """Whether maps (batch, channels, h, w) of constant size have the size that they get."""
    sides = *maps.shape[2:], *(size if isinstance(size, tuple | list) else ())
    return len(sides) == 4 and all(type(side) is int for side in sides) and sides[:2] == sides[2:]
