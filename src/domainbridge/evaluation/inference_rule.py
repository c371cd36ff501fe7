"""How images pass a network, and in which batches; without torch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from domainbridge.evaluation.windows import Windows, fits_in_one_piece, large_image_windows, sliding_windows

__all__ = ["InferenceRule", "same_size_batches", "windows_of"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class InferenceRule:
    """How an image is put through the network.

    Attributes:
        window: (height, width) of sliding windows that overlap by a third; None: the whole image at once, or, above
            four megapixels, in windows with context.
        flip: average with the mirrored image.
        precision: float32, or bfloat16 and float16 under autocast.
    """

    window: tuple[int, int] | None = None
    flip: bool = False
    precision: str = "float32"


def windows_of(height: int, width: int, rule: InferenceRule) -> Windows | None:
    """The windows for an image of that size at the network; None: in one piece."""
    if rule.window is not None:
        small = height <= rule.window[0] and width <= rule.window[1]
        return None if small else sliding_windows(height, width, rule.window)
    return None if fits_in_one_piece(height, width) else large_image_windows(height, width)


def same_size_batches(
    items: Iterable[Item], shape: Callable[[Item], tuple[int, ...]], at_once: Callable[[int, int], int]
) -> Iterator[list[Item]]:
    """Neighbors of one size, as many as go through the network together; the order stays.

    Args:
        items: with images.
        shape: of an item's image, (height, width, ...).
        at_once: how many images of a (height, width) make a batch.
    """
    batch: list[Item] = []
    for item in items:
        if batch and shape(item) != shape(batch[0]):
            yield batch
            batch = []
        batch.append(item)
        if len(batch) >= at_once(*shape(item)[:2]):
            yield batch
            batch = []
    if batch:
        yield batch
