"""CutMix and ClassMix: masks that say where the source shows, and pasting by a mask (docs/method.md, section 1).

    image_b = M * image_s + (1 - M) * image_t        label_b and weight_b likewise

Random numbers are drawn on the CPU for the whole batch. The masks are made from them on the labels' device, so one seed
gives the same masks on every device, for every number of processes, and nothing waits for the device.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from domainbridge.ops.transfer import to_device
from domainbridge.types import IGNORE, Rows

__all__ = [
    "AREA_SHARE",
    "Mixed",
    "class_masks",
    "class_mix",
    "cut_masks",
    "cut_mix",
    "draw_class_scores",
    "draw_rectangles",
    "masks_of_classes",
    "paste",
]


AREA_SHARE = 0.4
"""Share of the crop that the rectangle of the coarse region path covers, as published."""


class Mixed(NamedTuple):
    """A mix of source and target samples.

    Attributes:
        image: float32 (batch, 3, height, width) in [0, 1].
        label: int64 (batch, height, width).
        weight: float32 (batch, height, width), 1 on source pixels.
    """

    image: Tensor
    label: Tensor
    weight: Tensor


def cut_mix(
    source_label: Tensor, generator: torch.Generator, *, area_share: float = AREA_SHARE, rows: Rows | None = None
) -> Tensor:
    """Masks of the coarse region path: one source rectangle per sample (CutMix, Yun et al., arXiv 1905.04899).

    Args:
        source_label: int64 (batch, height, width); only its shape and device matter.
        generator: a CPU generator.
        area_share: share of the crop that the rectangle covers, in (0, 1).
        rows: rows of the whole batch that ``source_label`` holds; None: all of them.

    Returns:
        bool (batch, height, width), True where the source shows.
    """
    batch, height, width = source_label.shape
    rows = rows or Rows.whole(batch)
    rectangles = rows.of(draw_rectangles(rows.total, (height, width), area_share, generator))
    return cut_masks(to_device(rectangles, source_label.device), (height, width))


def class_mix(
    source_label: Tensor, generator: torch.Generator, *, ignore_as_class: bool = False, rows: Rows | None = None
) -> Tensor:
    """Masks of the fine class path: all pixels of half of the classes (ClassMix, Olsson et al., arXiv 2007.07936).

    Args:
        source_label: int64 (batch, height, width), train ids or 255.
        generator: a CPU generator.
        ignore_as_class: whether 255 may be drawn like a class, as in the published code.
        rows: rows of the whole batch that ``source_label`` holds; None: all of them.

    Returns:
        bool (batch, height, width), True where the source shows.
    """
    rows = rows or Rows.whole(len(source_label))
    scores = to_device(rows.of(draw_class_scores(rows.total, generator)), source_label.device)
    return class_masks(source_label, scores, ignore_as_class=ignore_as_class)


def paste(
    mask: Tensor,
    source_image: Tensor,
    source_label: Tensor,
    target_image: Tensor,
    pseudo_label: Tensor,
    pseudo_weight: Tensor,
) -> Mixed:
    """M * source + (1 - M) * target, for image, label and weight.

    Args:
        mask: bool (batch, height, width), True where the source shows.
        source_image: float32 (batch, 3, height, width).
        source_label: int64 (batch, height, width).
        target_image: like ``source_image``.
        pseudo_label: like ``source_label``.
        pseudo_weight: weight of target pixels, broadcastable to (batch, height, width).
    """
    return Mixed(
        torch.where(mask[:, None], source_image, target_image),
        torch.where(mask, source_label, pseudo_label),
        torch.where(mask, torch.ones_like(pseudo_weight), pseudo_weight),
    )


def draw_rectangles(batch: int, size: tuple[int, int], area_share: float, generator: torch.Generator) -> Tensor:
    """Draw one rectangle per sample.

    The height share is ``area_share ** u`` with u ~ U(0, 1), the width share is ``area_share / height share``. Sizes
    and corners are rounded half to even; the position is uniform.

    Args:
        batch: number of rectangles.
        size: (height, width) of the crop.
        area_share: share of the crop that a rectangle covers.
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
    """One uniform number per sample and label value, (batch, 256) float32: a lower number is drawn earlier."""
    return torch.rand(batch, 256, generator=generator)


def class_masks(label: Tensor, scores: Tensor, *, ignore_as_class: bool) -> Tensor:
    """Masks of ceil(n / 2) of the n label values that are present, drawn without replacement.

    Args:
        label: int64 (batch, height, width), train ids or 255.
        scores: (batch, 256) on the label's device. The present values with the lowest scores are chosen, which makes
            each subset equally likely.
        ignore_as_class: True: 255 is one of the n values, as in the published code. False: 255 is never chosen.

    Returns:
        bool (batch, height, width). All False for a label that is 255 everywhere, unless 255 counts.
    """
    present = _present_values(label)
    if not ignore_as_class:
        present[:, IGNORE] = False
    count = (present.sum(1, keepdim=True) + 1) // 2
    scores = scores.masked_fill(~present, torch.inf)
    rank = scores.argsort(1).argsort(1)
    return masks_of_classes(label, (rank < count) & present)


def masks_of_classes(label: Tensor, chosen: Tensor) -> Tensor:
    """Pixels whose label is chosen: label int64 (batch, height, width), chosen bool (batch, 256)."""
    return chosen.gather(1, label.flatten(1)).view_as(label)


def _present_values(label: Tensor) -> Tensor:
    """Which values occur in each sample: bool (batch, 256)."""
    present = torch.zeros(label.shape[0], 256, dtype=torch.bool, device=label.device)
    return present.scatter_(1, label.flatten(1), True)
