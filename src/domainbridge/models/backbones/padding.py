"""Images of any size for backbones that take only some sizes, such as multiples of 32 (HRNet)."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Padding", "leave_out_of_compilation"]

_GRID = 32
_GRIDS = (_GRID, 64, 128, 224, 256)
"""Multiples that are tried, from small to large."""
_AWKWARD = ((1, 1), (33, 49))
"""A backbone that takes these sizes takes every size."""
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError)
"""Errors of backbones that are given a size that does not suit them."""


class Padding:
    """Padding to sizes that a backbone takes; every size is tried once."""

    def __init__(self) -> None:
        self._any_size: bool | None = None
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def __call__(self, body: nn.Module, image: Tensor) -> Tensor:
        """The image, or, if the backbone does not take its size, the image padded at the bottom and at the right.

        The padding is zero, which is the mean color of a normalized image.

        Args:
            body: of the backbone.
            image: float32 (batch, 3, height, width), normalized.
        """
        height, width = image.shape[-2:]
        if height % _GRID == 0 and width % _GRID == 0:
            return image  # by far the commonest case; a backbone that takes no such size says so itself
        tall, wide = self._size(body, height, width)
        return image if (tall, wide) == (height, width) else F.pad(image, (0, wide - width, 0, tall - height))

    def _size(self, body: nn.Module, height: int, width: int) -> tuple[int, int]:
        if self._any_size is None:
            self._any_size = all(_takes(body, *size) for size in _AWKWARD)
        if self._any_size:
            return height, width
        if (height, width) not in self._sizes:
            self._sizes[height, width] = _size_after_padding(body, height, width)
        return self._sizes[height, width]


def leave_out_of_compilation() -> None:
    """Keep the search for a size out of compiled networks: sizes are tried on a copy, which cannot be traced.

    Called when a network is compiled, and not when this module is imported: torch's compiler takes a second to import.
    """
    Padding._size = torch.compiler.disable(Padding._size)  # type: ignore[method-assign,no-untyped-call]


def _size_after_padding(body: nn.Module, height: int, width: int) -> tuple[int, int]:
    """The smallest size that the backbone takes; the size itself if none is found."""
    if _takes(body, height, width):
        return height, width
    larger = ((-(-height // grid) * grid, -(-width // grid) * grid) for grid in _GRIDS)
    return next((size for size in larger if _takes(body, *size)), (height, width))


def _takes(body: nn.Module, height: int, width: int) -> bool:
    """Whether the backbone takes images of that size; tried on the meta device, without any arithmetic."""
    tensors = [*body.parameters(), *body.buffers()]
    memo: dict[int, object] = {id(tensor): _without_values(tensor) for tensor in tensors}
    try:
        with torch.no_grad():
            copy.deepcopy(body, memo).eval()(torch.empty(1, 3, height, width, device="meta"))
    except NotImplementedError:
        return True  # no such operation on the meta device: nothing is known
    except _REFUSALS:
        return False
    return True


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", dtype=torch.float32 if tensor.is_floating_point() else None)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
