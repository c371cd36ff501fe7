"""Images of any size for backbones that take some sizes only: multiples of 32 (HRNet) or of a window (MaxViT)."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbridge.errors import ModelError
from domainbridge.models.backbones.maps import cropped, fits, maps_of

__all__ = ["GRIDS", "Padding", "leave_out_of_compilation", "maps_without_values", "takes"]

_GRID = 32
GRIDS = (_GRID, 64, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
"""Multiples that are tried, from small to large: 32 times the usual windows."""
_AWKWARD = ((1, 1), (33, 49))
"""A backbone that takes these sizes takes every size."""
_REFUSALS = (RuntimeError, ValueError, AssertionError, IndexError)
"""Errors of backbones that are given a size that does not suit them."""


class Padding:
    """Padding to sizes that a backbone takes; every size is tried once."""

    def __init__(self, strides: Sequence[int] = (), *, any_grid: bool = True) -> None:
        """Sizes that suit an extractor.

        Args:
            strides: of its maps, which must have as many cells as the image has strides; none: not compared.
            any_grid: whether multiples of 32 are taken without a trial.
        """
        self._strides = tuple(strides)
        self._any_grid = any_grid
        self._any_size: bool | None = None
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}

    def __call__(self, body: nn.Module, image: Tensor) -> Tensor:
        """The image, or, if the backbone does not take its size, the image padded at the bottom and at the right.

        The padding is zero, which is the mean color of a normalized image.

        Args:
            body: of the backbone.
            image: float32 (batch, 3, height, width), normalized.

        Raises:
            ModelError: the backbone takes neither this size nor one of the larger sizes.
        """
        height, width = image.shape[-2:]
        if self._any_grid and height % _GRID == 0 and width % _GRID == 0:
            return image  # by far the commonest case
        tall, wide = self._size(body, height, width)
        return image if (tall, wide) == (height, width) else F.pad(image, (0, wide - width, 0, tall - height))

    def cropped(self, maps: Sequence[Tensor], padded: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Maps of a padded image without the cells that see the padding alone; ``size``: of the image."""
        return tuple(cropped(each, padded, size) for each in maps)

    def _size(self, body: nn.Module, height: int, width: int) -> tuple[int, int]:
        if self._any_size is None:
            self._any_size = all(takes(body, *size, self._strides) for size in _AWKWARD)
        if self._any_size:
            return height, width
        if (height, width) not in self._sizes:
            self._sizes[height, width] = _size_after_padding(body, height, width, self._strides)
        return self._sizes[height, width]


def leave_out_of_compilation() -> None:
    """Keep the search for a size out of compiled networks: sizes are tried on a copy, which cannot be traced.

    Called when a network is compiled, and not when this module is imported: torch's compiler takes a second to import.
    """
    Padding._size = torch.compiler.disable(Padding._size)  # type: ignore[method-assign,no-untyped-call]


def _size_after_padding(body: nn.Module, height: int, width: int, strides: Sequence[int]) -> tuple[int, int]:
    """The smallest size that the backbone takes."""
    larger = ((-(-height // grid) * grid, -(-width // grid) * grid) for grid in GRIDS)
    for size in dict.fromkeys([(height, width), *larger]):
        if takes(body, *size, strides):
            return size
    raise ModelError(
        f"the backbone takes no images of {width}x{height} pixels, even if they are padded: it is built for one size, "
        "or its maps do not cover the image"
    )


def takes(body: nn.Module, height: int, width: int, strides: Sequence[int]) -> bool:
    """Whether an extractor takes images of that size; tried on the meta device, without any arithmetic."""
    try:
        maps = maps_without_values(body, height, width)
    except NotImplementedError:
        return True  # no such operation on the meta device: nothing is known
    except _REFUSALS:
        return False
    return fits(maps, strides, (height, width))


def maps_without_values(body: nn.Module, height: int, width: int) -> tuple[Tensor, ...]:
    """An extractor's maps of an image of that size, on the meta device."""
    tensors = [*body.parameters(), *body.buffers()]
    memo: dict[int, object] = {id(tensor): _without_values(tensor) for tensor in tensors}
    with torch.no_grad():
        return maps_of(copy.deepcopy(body, memo).eval(), torch.empty(1, 3, height, width, device="meta"))


def _without_values(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta", dtype=torch.float32 if tensor.is_floating_point() else None)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
