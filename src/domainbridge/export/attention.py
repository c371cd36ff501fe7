"""Attention in graphs: ONNX writes another kernel than the one that was traced."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["ContiguousAttention"]


class ContiguousAttention(TorchFunctionMode):
    """Inside the block, the result of ``F.scaled_dot_product_attention`` has the memory layout of its shape.

    The CPU's kernel gives a transposed layout, so that a reshaping that follows is traced as a view. In ONNX the result
    has the usual layout, and the exporter refuses that view (MaxViT).
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of each of its functions."""
        result = func(*args, **(kwargs or {}))
        return result.contiguous() if func is F.scaled_dot_product_attention else result
