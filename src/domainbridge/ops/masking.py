"""Block masks of masked image consistency (MIC, Hoyer et al., CVPR 2023, arXiv 2212.01322, section 3.2).

    M[m * b + 1 : (m + 1) * b, n * b + 1 : (n + 1) * b] = [v > r],  v ~ U(0, 1) for each block (m, n)

Random numbers are drawn on the CPU for the whole batch, as in ``mixing.py``.
"""

import torch
from torch import Tensor

from domainbridge.ops.transfer import to_device
from domainbridge.types import Rows

__all__ = ["BLOCK_SIZE", "MASK_RATIO", "block_mask", "block_masks", "mask_image"]

BLOCK_SIZE = 64
"""Side b of a block in pixels, as published for crops of 512x512 and more."""
MASK_RATIO = 0.7
"""Share r of the blocks that are hidden, as published."""


def block_mask(
    image: Tensor, generator: torch.Generator, *, block_size: int, ratio: float, rows: Rows | None = None
) -> Tensor:
    """Masks of independent blocks.

    Args:
        image: (batch, channels, height, width); only its shape and device matter.
        generator: a CPU generator.
        block_size: side b of a block, pixels; blocks at the right and bottom border may be cut off.
        ratio: share r of hidden blocks, in [0, 1).
        rows: rows of the whole batch that ``image`` holds; None: all of them.

    Returns:
        bool (batch, height, width), True where the image stays visible.
    """
    batch, _, height, width = image.shape
    rows = rows or Rows.whole(batch)
    draws = torch.rand(rows.total, -(-height // block_size), -(-width // block_size), generator=generator)
    visible = to_device(rows.of(draws > ratio), image.device)
    return block_masks(visible, block_size, (height, width))


def block_masks(visible: Tensor, block_size: int, size: tuple[int, int]) -> Tensor:
    """Blocks to pixels: bool (batch, block rows, block columns) to bool (batch, height, width)."""
    pixels = visible.repeat_interleave(block_size, 1).repeat_interleave(block_size, 2)
    return pixels[:, : size[0], : size[1]]


def mask_image(mask: Tensor, image: Tensor, color: Tensor) -> Tensor:
    """The image with its hidden pixels in one color.

    Args:
        mask: bool (batch, height, width), True where the image stays visible.
        image: float32 (batch, 3, height, width) in [0, 1].
        color: float32 (1, 3, 1, 1) in [0, 1]. The network's mean color is 0 after its normalization, as published.
    """
    return torch.where(mask[:, None], image, color)
