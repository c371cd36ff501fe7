"""How images pass a network, and in which batches; without torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from domainbridge.config.scales import checked_scales
from domainbridge.data.transforms import ScaleRule
from domainbridge.errors import RecipeError
from domainbridge.evaluation.windows import Windows, fits_in_one_piece, large_image_windows, sliding_windows

__all__ = ["InferenceRule", "given_scales", "same_size_batches", "windows_of"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class InferenceRule:
    """How an image is put through the network.

    Attributes:
        window: (height, width) of sliding windows that overlap by a third; None: the whole image at once, or, above
            four megapixels, in windows with context.
        flip: average with the mirrored image.
        precision: float32, or bfloat16 and float16 under autocast.
        scales: factors of the image's size at the network; the result is the mean over all of them.
        pad: continue images until the network's largest stride divides their sides; see ``edge_padding``.

    With several passes (scales, mirrored or not) the result is the most probable class of the mean of the passes'
    softmax probabilities, as in mmsegmentation's test-time augmentation.
    """

    window: tuple[int, int] | None = None
    flip: bool = False
    precision: str = "float32"
    scales: tuple[float, ...] = (1.0,)
    pad: bool = True

    @property
    def mirrors(self) -> tuple[bool, ...]:
        """For each pass of one scale, whether it is that of the mirrored image."""
        return (False, True) if self.flip else (False,)

    @property
    def several(self) -> bool:
        """Whether several passes are averaged."""
        return len(self.scales) * len(self.mirrors) > 1

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of an image of that size at each scale."""
        return [ScaleRule(factor).size_for(height, width) for factor in self.scales]

    def largest_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of an image of that size at the largest scale."""
        return max(self.sizes(height, width))


def given_scales(scales: Sequence[float], where: str = "scales") -> tuple[float, ...]:
    """Scales from outside a recipe.

    Args:
        scales: factors.
        where: for messages.

    Raises:
        RecipeError: as for :func:`domainbridge.config.scales.checked_scales`.
    """
    try:
        return checked_scales(scales)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def windows_of(height: int, width: int, rule: InferenceRule) -> Windows | None:
    """The windows for an image that has that size at the network, whatever the scales; None: in one piece."""
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
