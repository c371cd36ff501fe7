"""One scale of an image in windows: which windows go through the network when, and how long their logits stay."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.evaluation.edge_padding import continued, covered
from domainbridge.evaluation.inference_rule import InferenceRule, windows_of
from domainbridge.evaluation.segmentation_model import WindowedImage, at_size
from domainbridge.evaluation.window_logits import Piece, Views, apart, needed_box
from domainbridge.evaluation.windows import Box, Windows
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import to_device
from domainbridge.types import as_unit_float

__all__ = ["KeptViews", "MeanViews", "Network", "views_of_scale"]

_PIXELS_AT_ONCE = 4 * 512 * 512
"""Pixels of the windows that go through the network together."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Network:
    """A network and how crops pass it.

    Attributes:
        model: in evaluation mode.
        device: the model's.
        precision: of the forward pass: float32, or bfloat16 and float16 under autocast. Logits are float32.
        grid: crops are continued until their sides are multiples of it; 1: never.
    """

    model: Segmenter
    device: torch.device
    precision: str = "float32"
    grid: int = 1

    @classmethod
    def under(cls, rule: InferenceRule, model: Segmenter, device: torch.device) -> "Network":
        """A network as the rule says."""
        return cls(model, device, rule.precision, model.grid if rule.pad else 1)

    def logits(self, crops: Sequence[NDArray[np.uint8]], *, mirror: bool) -> Tensor:
        """Logits at the head's resolution, float32 (batch, classes, h, w), of crops of one size; see :meth:`covered`.

        ``mirror``: of the mirrored crops, mirrored back.
        """
        batch = torch.from_numpy(np.stack([continued(crop, self.grid).transpose(2, 0, 1) for crop in crops]))
        tensor = as_unit_float(to_device(batch, self.device))
        low = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision)) if low else nullcontext():
            output = self.model(tensor.flip(3) if mirror else tensor)
        logits: Tensor = output.logits.float()
        return logits.flip(3) if mirror else logits

    def covered(self, size: Size) -> Size:
        """(height, width) that the logits of a crop of that size cover, from its top and left."""
        return covered(size, self.grid)


@dataclass(frozen=True)
class _Scale:
    """An image at one scale.

    Attributes:
        network: see there.
        image: RGB, uint8 (height, width, 3), at the scale.
        shape: (height, width) of it.
        size: (height, width) of the result.
        windows: over the image.
        mirrors: for each pass, whether it is that of the mirrored image.
        needs: number of a part of the result -> the pixels of the image that the part is interpolated from.
    """

    network: Network
    image: WindowedImage
    shape: Size
    size: Size
    windows: Windows
    mirrors: Sequence[bool]
    needs: Mapping[int, Box]

    def see(self, views: Sequence[Box], *, mirror: bool) -> list[Piece]:
        """Windows put through the network, some at a time; ``mirror``: those of the mirrored image, mirrored back."""
        pieces: list[Piece] = []
        for (tall, wide), group in groupby(views, lambda view: view.size):
            same = list(group)
            count = max(_PIXELS_AT_ONCE // (tall * wide), 1)
            for some in (same[first : first + count] for first in range(0, len(same), count)):
                crops = [self.image[view.top : view.bottom, view.left : view.right] for view in some]
                logits = self.network.logits(crops, mirror=mirror)
                cover = self.network.covered((tall, wide))
                pieces += (
                    Piece(view, cover, each, each.shape[1], 0, view) for view, each in zip(some, logits, strict=True)
                )
        return pieces


@dataclass
class MeanViews:
    """Sliding windows: a part is the mean of those that meet the part, which are seen for each part anew."""

    scale: _Scale

    def views(self, number: int) -> list[Views]:
        """For each pass, the views of a part of the result."""
        scale, needed = self.scale, self.scale.needs[number]
        seen = [scale.see(scale.windows.mean_views(needed, mirror=m), mirror=m) for m in scale.mirrors]
        return [Views(pieces, scale.shape, scale.size) for pieces in seen]

    def forget(self, number: int) -> None:
        """Nothing is kept."""


@dataclass
class KeptViews:
    """Windows that later parts still need: about one row of windows with context, of each the rows that it fades over.

    Attributes:
        scale: see there.
        positions: number of a part of the result -> the positions of its windows.
        pieces: position -> the window's logits in each pass.
    """

    scale: _Scale
    positions: Mapping[int, Sequence[int]]
    pieces: dict[int, list[Piece]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tops: dict[int, dict[int, int]] = {}
        """Position -> number of a part -> the highest row that this part and later ones need."""
        for number in sorted(self.positions, reverse=True):
            for position in self.positions[number]:
                later = self._tops.setdefault(position, {})
                top = self.scale.needs[number].top
                later[number] = min(top, *later.values()) if later else top

    def views(self, number: int) -> list[Views]:
        """For each pass, the views of a part of the result."""
        scale, positions = self.scale, self.positions[number]
        for position in positions:
            if position not in self.pieces:
                self.pieces[position] = [self._see(position, mirror) for mirror in scale.mirrors]
        every = zip(*(self.pieces[position] for position in positions), strict=True)
        return [Views(list(pieces), scale.shape, scale.size) for pieces in every]

    def _see(self, position: int, mirror: bool) -> Piece:
        windows = self.scale.windows
        (piece,) = self.scale.see([windows.views[position]], mirror=mirror)
        if windows.fades is None:
            return piece
        return replace(piece, logits=apart(piece.logits), weights=partial(windows.weights, position))

    def forget(self, number: int) -> None:
        """Drop what no part after this one needs."""
        for position in self.positions[number]:
            later = [top for part, top in self._tops[position].items() if part > number]
            if not later:
                del self.pieces[position]
            elif min(later) > self._tops[position][number]:
                rows = min(later), self._bottom(position)
                self.pieces[position] = [piece.between(*rows) for piece in self.pieces[position]]

    def _bottom(self, position: int) -> int:
        """The row from which on the windows below count alone; a window in the last row ends before."""
        if self.scale.windows.fades is None:
            return self.scale.shape[0]
        rows, columns = self.scale.windows.fades
        return rows.borders[position // (len(columns.borders) - 1) + 1] + rows.reach


def views_of_scale(
    network: Network,
    image: WindowedImage,
    shape: Size,
    size: Size,
    rule: InferenceRule,
    parts: Sequence[Box],
    *,
    gives_parts: bool,
) -> KeptViews | MeanViews:
    """The logits of one scale of an image.

    Args:
        network: see there.
        image: RGB, uint8 (height, width, 3), at the network's input size.
        shape: (height, width) of the image at the scale.
        size: (height, width) of the result.
        rule: see there.
        parts: of the result, row by row.
        gives_parts: the parts are those of the windows at this scale.
    """
    needs = {number: needed_box(part, shape, size) for number, part in enumerate(parts) if 0 not in part.size}
    whole = Box(0, shape[0], 0, shape[1])
    windows = windows_of(*shape, rule) or Windows((whole,), (whole,), shape[1])
    scale = _Scale(network, at_size(image, shape), shape, size, windows, rule.mirrors, needs)
    if windows.fades is not None:
        positions = {
            number: windows.faded_views(number if gives_parts else None, needed) for number, needed in needs.items()
        }
        return KeptViews(scale, positions)
    return KeptViews(scale, {number: [0] for number in needs}) if len(windows.views) == 1 else MeanViews(scale)
