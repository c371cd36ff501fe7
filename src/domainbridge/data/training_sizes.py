"""Sizes of the images that a model was trained on, and how another image's scale compares with theirs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ImageSizes", "Size", "TrainingSizes"]

_CLEAR_FACTOR = 2.0
"""Networks learn objects of several sizes: up to this factor little is lost."""

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageSizes:
    """Sizes of a domain's images at the network, before the crop; (height, width), in the order of their areas.

    Attributes:
        images: how many were looked at.
        smallest: of these.
        median: of these.
        largest: of these.
        scale: least and largest factor of the random change of scale in training.
    """

    images: int
    smallest: Size
    median: Size
    largest: Size
    scale: tuple[float, float] = (1.0, 1.0)

    def factor(self, size: Size) -> float:
        """How many times as long as in training the sides of an image are: 1 inside the random changes of scale.

        The sides are compared by their geometric mean: a turned image has the scale of the upright one.
        """
        ratio = math.sqrt(size[0] * size[1] / (self.median[0] * self.median[1]))
        least, largest = self.scale
        return ratio / largest if ratio > largest else ratio / least if ratio < least else 1.0


@dataclass(frozen=True)
class TrainingSizes:
    """Of the images that a model was trained on.

    Attributes:
        crop: (height, width) that the network saw in training.
        source: None where no source image was used.
        target: None where no target image was used.
    """

    crop: Size
    source: ImageSizes | None = None
    target: ImageSizes | None = None

    @property
    def main(self) -> ImageSizes | None:
        """The domain that a model is made for: the target, where target images were used."""
        return self.target or self.source

    def factor(self, size: Size) -> float:
        """How many times as long as in the nearest domain the sides of an image are; ``size``: at the network."""
        factors = [domain.factor(size) for domain in (self.target, self.source) if domain is not None]
        return min(factors, key=lambda factor: abs(math.log(factor)), default=1.0)

    def differs(self, size: Size) -> bool:
        """Whether an image's sides are more than twice as long as in training, or less than half as long."""
        return abs(math.log(self.factor(size))) > math.log(_CLEAR_FACTOR)

    def comparison(self, size: Size) -> str:
        """An image's size beside those of training; ``size``: (height, width) at the network."""
        domains = [("target", self.target), ("source", self.source)]
        medians = [f"{_text(domain.median)} ({name})" for name, domain in domains if domain is not None]
        factor = self.factor(size)
        return (
            f"{_text(size)} pixels at the network, {' and '.join(medians)} in training, so sides {factor:.2g} times as "
            "long"
        )

    @classmethod
    def from_json(cls, content: Any) -> "TrainingSizes | None":
        """What :func:`dataclasses.asdict` made of the sizes; None for None.

        Raises:
            ValueError: something else.
        """
        if content is None:
            return None
        try:
            return cls(_size(content["crop"]), *(_domain(content[name]) for name in ("source", "target")))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"training_sizes: {error!r}") from error


def _domain(content: Mapping[str, Any] | None) -> ImageSizes | None:
    if content is None:
        return None
    images, (least, largest) = content["images"], content["scale"]
    if type(images) is not int or images < 1 or not 0 < float(least) <= float(largest):
        raise ValueError(f"training_sizes: {content}")
    smallest, median, greatest = (_size(content[name]) for name in ("smallest", "median", "largest"))
    return ImageSizes(images, smallest, median, greatest, (least, largest))


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def _size(content: Any) -> Size:
    height, width = content
    if not all(type(side) is int and side > 0 for side in (height, width)):
        raise ValueError(f"training_sizes: {content!r} is no height and width in pixels")
    return height, width
