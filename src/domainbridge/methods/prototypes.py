"""Class centroids of one path's features on the target (docs/method.md, section 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Positive, PositiveInt, Section
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.prototype_distance import class_sums
from domainbridge.ops.upsample import upsample

__all__ = [
    "PrototypeBank",
    "PrototypesConfig",
    "RunningPrototypesConfig",
    "empty_bank",
    "image_means",
    "means_of",
    "moved_bank",
    "running_mean",
]


class PrototypesConfig(Section):
    """Class prototypes for step 2."""

    passes: Positive = Field(4, le=10_000, description="passes over the target's training images")
    min_pixels: PositiveInt = Field(10, description="least number of predicted pixels for a crop to count for a class")
    max_count: PositiveInt = Field(3000, description="cap of the running mean's count of crops")


class RunningPrototypesConfig(Section):
    """Prototypes that follow an EMA teacher during training."""

    min_pixels: PositiveInt = Field(10, description="least number of predicted pixels for a crop to count for a class")
    max_count: PositiveInt = Field(
        200,
        description="cap of the running mean's count of steps: prototypes follow features over about so many steps",
    )


@dataclass(frozen=True)
class PrototypeBank:
    """Prototypes collected so far.

    Attributes:
        vectors: float32 (classes, channels); zero for a class never predicted.
        counts: float32 (classes,): averaged images, capped.
    """

    vectors: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Classes that have a prototype, bool (classes,)."""
        return self.counts > 0

    @property
    def missing(self) -> Tensor:
        """Classes to leave out of a softmax, bool (classes,): those without a prototype, or none if all are without."""
        return ~self.present & self.present.any()


def empty_bank(num_classes: int, channels: int, device: torch.device) -> PrototypeBank:
    """A bank without any prototype."""
    return PrototypeBank(torch.zeros(num_classes, channels, device=device), torch.zeros(num_classes, device=device))


@torch.inference_mode()
def image_means(model: Segmenter, image: Tensor, num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Mean feature per image and predicted class; ``model`` is in evaluation mode.

    Args:
        model: the path's student.
        image: target crops, float32 (batch, 3, height, width) in [0, 1].
        num_classes: K.
        min_pixels: a class with fewer predicted pixels does not count.

    Returns:
        As :func:`means_of`.
    """
    return means_of(model(image), (image.shape[-2], image.shape[-1]), num_classes, min_pixels)


def means_of(output: Segmentation, size: tuple[int, int], num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Mean feature per image and predicted class, from the network's output.

    Features and predictions are those at the crop's ``size``; neither the upsampled features nor a loop over classes
    is needed.

    Returns:
        Means, float32 (batch, K, channels), and which of them count, bool (batch, K).
    """
    prediction = upsample(output.logits.float(), size).max(1).indices
    sums, pixels = class_sums(output.features, prediction, num_classes)
    return sums / pixels.clamp_min(1)[:, :, None], pixels >= min_pixels


def running_mean(bank: PrototypeBank, means: Tensor, seen: Tensor, max_count: int) -> PrototypeBank:
    """Fold the images of a batch, in order, into the running means.

    Image i moves a prototype by the share a_i = 1 / (n_i + 1); n_i is the number of images before i, at most
    ``max_count``. All images at once: v0 * prod(1 - a_i) + sum_i a_i * prod_{j > i}(1 - a_j) * mean_i.

    Args:
        bank: before the batch.
        means: float32 (batch, classes, channels).
        seen: bool (batch, classes): which means count.
        max_count: cap of n, 3000 as published.
    """
    counted = seen.float()
    before = (bank.counts + counted.cumsum(0) - counted).clamp_max(max_count)
    share = counted / (before + 1)
    kept_after = (1 - share).flip(0).cumprod(0).flip(0)
    later = torch.cat([kept_after[1:], torch.ones_like(kept_after[:1])])
    vectors = bank.vectors * kept_after[0, :, None] + torch.einsum("bk,bkc->kc", share * later, means)
    return PrototypeBank(vectors, (bank.counts + counted.sum(0)).clamp_max(max_count))


@torch.no_grad()
def moved_bank(
    bank: PrototypeBank,
    output: Segmentation,
    size: tuple[int, int],
    *,
    min_pixels: int,
    max_count: int,
    mean_over_devices: Callable[[Tensor], Tensor] | None = None,
) -> PrototypeBank:
    """A running mean over steps; the sample of a class is the mean over the crops in which the class counts.

    Args:
        bank: before the step.
        output: of the network whose prototypes these are, for the step's target crops.
        size: (height, width) of the crops.
        min_pixels: a class with fewer predicted pixels in a crop does not count.
        max_count: cap of the count of steps.
        mean_over_devices: mean of a tensor over the devices that share a batch; None for one device.
    """
    with torch.autocast(output.logits.device.type, enabled=False):
        full = Segmentation(output.logits.float(), output.features.float())
        means, seen = means_of(full, size, len(bank.counts), min_pixels)
        crops = seen.float().sum(0)
        sums = torch.cat([(means * seen[:, :, None]).sum(0), crops[:, None]], 1)
        sums = sums if mean_over_devices is None else mean_over_devices(sums)
        sample, counted = sums[:, :-1] / sums[:, -1:].clamp_min(1e-6), sums[:, -1] > 0
        return running_mean(bank, sample[None], counted[None], max_count)
