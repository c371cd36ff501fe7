"""Training batches as a function of the step: ``stream[step]`` has the same value at any time and in any worker."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from domainbridge.config.sections import CropConfig
from domainbridge.data.dataset import Dataset
from domainbridge.data.sampling import Mixture
from domainbridge.data.statistics import RareClasses
from domainbridge.data.strong_augmentation import augment_strongly, draw_strong
from domainbridge.data.transforms import (
    choose_crop,
    distort,
    draw_distortion,
    draw_offset,
    draw_window,
    pad_to,
    resize_image,
    resize_label,
    scaled_size,
)
from domainbridge.seeding import numpy_generator
from domainbridge.types import IGNORE, Batch, Rows

__all__ = ["CropRule", "PairedCrops", "TargetCrops"]

_DEFAULTS = CropConfig()


@dataclass(frozen=True)
class CropRule:
    """From a resized image to a training crop.

    Attributes:
        size: (height, width) in pixels.
        cat_max_ratio: a labeled crop is redrawn if one class reaches this share of the labeled pixels.
        max_tries: largest number of redraws.
        flip: probability of a horizontal flip.
        padding: RGB below and right of an image that is smaller than the crop; normalizes to about 0.
        scale: bounds of the random factor of a source image's size in training.
        target_scale: the same of a target image.
    """

    size: tuple[int, int]
    cat_max_ratio: float = _DEFAULTS.cat_max_ratio
    max_tries: int = _DEFAULTS.max_tries
    flip: float = _DEFAULTS.flip
    padding: tuple[int, int, int] = (124, 116, 104)
    scale: tuple[float, float] = _DEFAULTS.scale
    target_scale: tuple[float, float] = _DEFAULTS.target_scale


class PairedCrops(torch.utils.data.Dataset[Batch]):
    """Item ``step`` is the batch of that step: each source image of the epoch with a random target image."""

    def __init__(
        self,
        source: Dataset | None,
        target: Dataset,
        rule: CropRule,
        *,
        batch_size: int,
        seed: int,
        stage: str,
        distort_source: bool = False,
        augment_source: bool = False,
        rare: RareClasses | None = None,
        source_mixture: Mixture | None = None,
        target_mixture: Mixture | None = None,
        target_names: tuple[str, ...] = (),
        rows: Rows | None = None,
    ) -> None:
        """Keep the arguments.

        Args:
            source: labeled samples; None: the target crop takes the place of the source crop, with label 255.
            target: unlabeled samples.
            rule: size and draws of the crops.
            batch_size: pairs per step, over all processes.
            seed: seed of the run.
            stage: name of the stage; each stage has its own draws.
            distort_source: add photometric distortion to the source (docs/method.md, section 4).
            augment_source: strong photometric augmentation of the source, after the distortion.
            rare: rare class sampling in place of shuffled epochs of the source, except for the rows of domains with a
                fixed share.
            source_mixture: shares of several sources; default: by size.
            target_mixture: shares of several targets; default: by size.
            target_names: of the targets, for ``Batch.target_domain``; default: not told.
            rows: rows of each batch that this process loads; default: all rows.
        """
        self.source, self.target, self.rule = source, target, rule
        self.batch_size, self.seed, self.stage = batch_size, seed, stage
        self.distort_source, self.augment_source = distort_source, augment_source
        self.rare = rare
        self.source_mixture = source_mixture or Mixture((len(source or ()),))
        self.target_mixture = target_mixture or Mixture((len(target),))
        self.target_names = target_names
        self.rows = rows or Rows.whole(batch_size)

    def __getitem__(self, step: int) -> Batch:
        """Batch of ``step`` as uint8 tensors."""
        first, count = self.rows.first, self.rows.count
        pairs = [self._pair(step, row) for row in range(first, first + count)]
        *crops, numbers = zip(*pairs, strict=True)
        image, label, target = (torch.from_numpy(np.stack(part)) for part in crops)
        domains = (self.target_mixture.domain_of(number) for number in numbers) if self.target_names else ()
        return Batch(image, label, target, self.rows, tuple(self.target_names[domain] for domain in domains))

    def _pair(self, step: int, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], int]:
        """Source crop, its label, target crop, and the number of the target image."""
        generator = numpy_generator(self.seed, self.stage, step, row, "crop")
        scales = numpy_generator(self.seed, self.stage, step, row, "scale")
        if self.source is None:
            number = self.target_mixture.draw(generator)
            window = draw_window(self.rule.size, self.rule.target_scale, scales)
            crop = _random_crop(self.target[number].image, self.rule, generator, window)
            return crop, np.full(self.rule.size, IGNORE, np.uint8), crop, number
        wanted = None
        index = self.source_mixture.index(self.seed, self.stage, step * self.batch_size + row)
        if self.rare is not None and not self.source_mixture.has_fixed_share(index):
            train_id, index = self.rare.draw(generator)
            wanted = (train_id, self.rare.min_share / 2)
        source = self.source[index]
        assert source.label is not None
        image, window = source.image, draw_window(self.rule.size, self.rule.scale, scales)
        height, width = window

        def draw() -> tuple[int, int]:
            return draw_offset((image.shape[0], image.shape[1]), window, generator)

        y, x = choose_crop(source.label, window, self.rule.cat_max_ratio, self.rule.max_tries, draw, wanted)
        image, label = image[y : y + height, x : x + width], source.label[y : y + height, x : x + width]
        size = scaled_size((label.shape[0], label.shape[1]), window, self.rule.size)
        image, label = resize_image(image, size), resize_label(label, size)
        if generator.random() < self.rule.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        if self.distort_source:
            image = distort(np.ascontiguousarray(image), draw_distortion(generator))
        if self.augment_source:
            draws = draw_strong(numpy_generator(self.seed, self.stage, step, row, "strong augmentation"))
            image = augment_strongly(np.ascontiguousarray(image), draws)
        label = pad_to(label, self.rule.size, IGNORE)
        number = self.target_mixture.draw(generator)
        window = draw_window(self.rule.size, self.rule.target_scale, scales)
        target = _random_crop(self.target[number].image, self.rule, generator, window)
        return _channels_first(image, self.rule), label, target, number


class TargetCrops(torch.utils.data.Dataset[torch.Tensor]):
    """Random crops of every target image, ``passes`` times, in batches: uint8 (batch, 3, height, width)."""

    def __init__(
        self,
        target: Dataset,
        rule: CropRule,
        *,
        batch_size: int,
        passes: int,
        seed: int,
        stage: str,
        mixture: Mixture | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Keep the arguments.

        A ``mixture`` draws several domains in its shares, so not every image comes once per pass. With ``rows``, only
        these rows of every batch are loaded, and every batch must be complete.
        """
        self.target, self.rule = target, rule
        self.batch_size, self.passes = batch_size, passes
        self.seed, self.stage = seed, stage
        self.order = mixture or Mixture((len(target),))
        self.rows = rows

    def __len__(self) -> int:
        return -(-len(self.target) * self.passes // self.batch_size)

    def __getitem__(self, step: int) -> torch.Tensor:
        """Batch ``step``; the last batch may be smaller."""
        first = step * self.batch_size
        positions = range(first, min(first + self.batch_size, len(self.target) * self.passes))
        if self.rows is not None:
            positions = positions[self.rows.first : self.rows.first + self.rows.count]
        crops = []
        for position in positions:
            image = self.target[self.order.index(self.seed, self.stage, position)].image
            generator = numpy_generator(self.seed, self.stage, position, "crop")
            crops.append(_random_crop(image, self.rule, generator))
        return torch.from_numpy(np.stack(crops))


def _random_crop(
    image: NDArray[np.uint8], rule: CropRule, generator: np.random.Generator, window: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """A part of the image, of the size of the window or of the crop, as a crop."""
    window = window or rule.size
    y, x = draw_offset((image.shape[0], image.shape[1]), window, generator)
    image = image[y : y + window[0], x : x + window[1]]
    image = resize_image(image, scaled_size((image.shape[0], image.shape[1]), window, rule.size))
    if generator.random() < rule.flip:
        image = image[:, ::-1]
    return _channels_first(image, rule)


def _channels_first(image: NDArray[np.uint8], rule: CropRule) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pad_to(image, rule.size, rule.padding).transpose(2, 0, 1))
