"""Where the source shows in a bridged image: one mask per sample, True = source (METHOD section 1).

Random numbers are drawn on the CPU (``draw_*``) and the masks made on the labels' device from them, so the
same seed gives the same mask on every device and nothing waits for the device.
"""

import torch
from torch import Tensor

from domainbridge.types import IGNORE

__all__ = ["class_masks", "cut_masks", "draw_class_scores", "draw_rectangles", "masks_of_classes"]


def draw_rectangles(batch: int, size: tuple[int, int], area_share: float, generator: torch.Generator) -> Tensor:
    """Rectangles of the coarse region path.

    The height share is ``area_share ** u`` with u ~ U(0, 1), the width share ``area_share / height share``; sizes
    and corners are rounded half to even and the place is uniform.

    Args:
        batch: how many.
        size: (height, width) of the crop.
        area_share: the rectangle's share of the crop, 0.4 as published.
        generator: a CPU generator.

    Returns:
        int64 (batch, 4): top, left, bottom, right; the end is exclusive.
    """
    u, v, w = torch.rand(3, batch, generator=generator, dtype=torch.float64)
    height_share = area_share**u
    extent = torch.stack([height_share * size[0], area_share / height_share * size[1]], 1).round()
    room = torch.tensor(size, dtype=torch.float64) - extent
    corner = (torch.stack([v, w], 1) * room).round()
    return torch.cat([corner, corner + extent], 1).long()


def cut_masks(rectangles: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks that are True inside the rectangles.

    Args:
        rectangles: int64 (batch, 4) as :func:`draw_rectangles` gives them.
        size: (height, width).

    Returns:
        bool (batch, height, width).
    """
    rows = torch.arange(size[0], device=rectangles.device)[None, :, None]
    columns = torch.arange(size[1], device=rectangles.device)[None, None, :]
    top, left, bottom, right = rectangles[:, :, None, None].unbind(1)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def draw_class_scores(batch: int, generator: torch.Generator) -> Tensor:
    """One uniform number per sample and label value, (batch, 256) float32: lower is drawn earlier."""
    return torch.rand(batch, 256, generator=generator)


def class_masks(label: Tensor, scores: Tensor, *, ignore_counts: bool) -> Tensor:
    """Masks of the fine class path: the pixels of ceil(n / 2) of the n label values present, without replacement.

    Args:
        label: int64 (batch, height, width), train ids or 255.
        scores: (batch, 256) on the label's device; the values present with the lowest scores are chosen, which
            makes each subset equally likely.
        ignore_counts: True: 255 is one of the n values, as in the published code. False: it is never chosen.

    Returns:
        bool (batch, height, width). All False for a label that is all 255 when 255 does not count.
    """
    present = _present_values(label)
    if not ignore_counts:
        present[:, IGNORE] = False
    wanted = (present.sum(1, keepdim=True) + 1) // 2
    scores = scores.masked_fill(~present, torch.inf)
    rank = scores.argsort(1).argsort(1)
    return masks_of_classes(label, (rank < wanted) & present)


def masks_of_classes(label: Tensor, chosen: Tensor) -> Tensor:
    """Pixels whose label is chosen: label int64 (batch, height, width), chosen bool (batch, 256)."""
    return chosen.gather(1, label.flatten(1)).view_as(label)


def _present_values(label: Tensor) -> Tensor:
    """Which values occur in each sample: bool (batch, 256)."""
    present = torch.zeros(label.shape[0], 256, dtype=torch.bool, device=label.device)
    return present.scatter_(1, label.flatten(1), True)
