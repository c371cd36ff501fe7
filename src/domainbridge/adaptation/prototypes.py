"""Class centroids of one path's features on the target (METHOD section 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from domainbridge.adaptation.feature_geometry import class_sums
from domainbridge.models.segmenter import Segmentation, Segmenter, upsample

__all__ = ["PrototypeBank", "empty_bank", "image_means", "means_of", "running_mean"]


@dataclass(frozen=True)
class PrototypeBank:
    """Centroids so far.

    Attributes:
        vectors: float32 (classes, channels); zero for a class never seen.
        counts: float32 (classes,): images averaged, capped.
    """

    vectors: Tensor
    counts: Tensor

    @property
    def present(self) -> Tensor:
        """Classes that have a centroid, bool (classes,)."""
        return self.counts > 0


def empty_bank(num_classes: int, channels: int, device: torch.device) -> PrototypeBank:
    """No class seen yet."""
    return PrototypeBank(torch.zeros(num_classes, channels, device=device), torch.zeros(num_classes, device=device))


@torch.inference_mode()
def image_means(model: Segmenter, image: Tensor, num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Mean feature per image and predicted class; ``model`` is in evaluation mode.

    Args:
        model: the path's student.
        image: target crops, float32 (batch, 3, height, width) in [0, 1].
        num_classes: K.
        min_pixels: a class with fewer is not counted, 10 as published.

    Returns:
        As :func:`means_of`.
    """
    return means_of(model(image), (image.shape[-2], image.shape[-1]), num_classes, min_pixels)


def means_of(said: Segmentation, size: tuple[int, int], num_classes: int, min_pixels: int) -> tuple[Tensor, Tensor]:
    """Mean feature per image and predicted class, from what the network said.

    Features and predictions are those at the crop's ``size``; neither the upsampled features nor a loop over classes
    is needed.

    Returns:
        Means, float32 (batch, K, channels), and which of them count, bool (batch, K).
    """
    prediction = upsample(said.logits.float(), size).max(1).indices
    sums, pixels = class_sums(said.features, prediction, num_classes)
    return sums / pixels.clamp_min(1)[:, :, None], pixels >= min_pixels


def running_mean(bank: PrototypeBank, means: Tensor, seen: Tensor, max_count: int) -> PrototypeBank:
    """Fold the images of a batch, in order, into the running means.

    Image i moves a centroid by the share a_i = 1 / (n_i + 1), n_i being the images before it, at most
    ``max_count``. All steps at once: v0 * prod(1 - a_i) + sum_i a_i * prod_{j > i}(1 - a_j) * mean_i.

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
