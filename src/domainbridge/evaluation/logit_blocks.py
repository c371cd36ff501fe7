"""Logits at the size of the result, a block of pixels at a time, so that an image of any size needs bounded memory.

A pass is the image at one scale, mirrored or not. Every block has the logits of all passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.transforms import resize_image
from domainbridge.evaluation.inference_rule import InferenceRule, windows_of
from domainbridge.evaluation.kept_views import Network, views_of_scale
from domainbridge.evaluation.segmentation_model import WindowedImage
from domainbridge.evaluation.window_logits import Views, scaled_box
from domainbridge.evaluation.windows import Box
from domainbridge.ops.upsample import LazyUpsample, row_chunks

__all__ = ["Blocks", "WholePass", "blocks_in_one_piece", "parts_in_windows", "passes_in_one_piece"]

_VALUES = 2**23
"""Logits at full width that are kept at a time, 32 MiB."""
_ROWS, _COLUMNS = 64, 1024
"""Size of a block of an image in windows."""

Image = NDArray[np.uint8]
Size = tuple[int, int]


Blocks = Iterator[tuple[Box, list[Tensor]]]
"""Boxes that cover a part of the result once, with float32 (classes, *box.size) of each pass."""


@dataclass(frozen=True)
class WholePass:
    """One pass of images in one piece.

    Attributes:
        logits: float32 (batch, classes, h, w).
        input_size: (height, width) of the images at the network.
        covered: (height, width) that the logits cover, from the images' top and left.
    """

    logits: Tensor
    input_size: Size
    covered: Size

    def of(self, number: int) -> "WholePass":
        """That of one image of the batch."""
        return replace(self, logits=self.logits[number : number + 1])


def passes_in_one_piece(network: Network, images: Sequence[Image], rule: InferenceRule) -> list[WholePass]:
    """All passes of images of one size, RGB, uint8 (height, width, 3), which go through the network together."""
    passes = []
    for size in rule.sizes(images[0].shape[0], images[0].shape[1]):
        scaled = [resize_image(image, size) for image in images]
        cover = network.covered(size)
        passes += [WholePass(network.logits(scaled, mirror=mirror), size, cover) for mirror in rule.mirrors]
    return passes


def blocks_in_one_piece(passes: Sequence[WholePass], size: Size, rows: slice | None = None) -> Blocks:
    """The blocks of the result, or of some of its rows, of an image that passed the network in one piece.

    Args:
        passes: of the one image.
        size: (height, width) of the result. Logits go to the pass's input size first, then to this one.
        rows: of the result; default: all.
    """
    classes, height = passes[0].logits.shape[1], max(each.logits.shape[2] for each in passes)
    rows = rows or slice(0, size[0])
    step = max(_VALUES // (classes * max(height, _ROWS)), _ROWS)
    for left in range(0, size[1], step):
        columns = slice(left, min(left + step, size[1]))
        lazy = [
            LazyUpsample(each.logits, each.input_size, size, covered=each.covered, columns=columns) for each in passes
        ]
        for some in row_chunks(rows.stop - rows.start):
            box = Box(rows.start + some.start, rows.start + some.stop, columns.start, columns.stop)
            yield box, [logits.rows(slice(box.top, box.bottom))[0] for logits in lazy]


def parts_in_windows(
    network: Network, image: WindowedImage, size: Size, rule: InferenceRule
) -> Iterator[tuple[Box, Blocks]]:
    """The parts of the result of an image in windows, row by row, each with the blocks of all passes.

    Args:
        network: see there.
        image: RGB, uint8 (height, width, 3), at the network's input size; or what reads such windows from a file.
        size: (height, width) of the result. Logits go to the pass's input size first, then to this one.
        rule: see there; at its largest scale, the image is too large for one piece.

    Yields:
        A box of the result, and its blocks, which are to be used before the next part is asked for.
    """
    sizes = rule.sizes(*image.shape[:2])
    largest = rule.largest_size(*image.shape[:2])
    windows = windows_of(*largest, rule)
    assert windows is not None
    goals = [scaled_box(part, largest, size) for part in windows.parts]
    scales = [
        views_of_scale(network, image, scaled, size, rule, goals, gives_parts=scaled == largest) for scaled in sizes
    ]
    block = _block_size(sizes, size)
    for number, goal in enumerate(goals):
        if 0 in goal.size:
            continue
        yield goal, _blocks([views for scale in scales for views in scale.views(number)], goal, block)
        for scale in scales:
            scale.forget(number)


def _blocks(sources: Sequence[Views], goal: Box, block: Size) -> Blocks:
    tall, wide = block
    for left in range(goal.left, goal.right, wide):
        for top in range(goal.top, goal.bottom, tall):
            box = Box(top, min(top + tall, goal.bottom), left, min(left + wide, goal.right))
            yield box, [source.block(box) for source in sources]


def _block_size(sizes: Sequence[Size], size: Size) -> Size:
    """Rows and columns of a block of the result: fewer where several pixels of an input lead to one of the result."""
    tall, wide = (min(1.0, *(size[axis] / each[axis] for each in sizes)) for axis in (0, 1))
    return max(int(_ROWS * tall), 1), max(int(_COLUMNS * wide), 1)
