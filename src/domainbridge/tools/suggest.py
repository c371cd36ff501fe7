"""Which target images to label next: those on which the models disagree and that differ from each other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domainbridge.data.dataset import Dataset, ahead
from domainbridge.errors import DataError
from domainbridge.evaluation.grid import image_on, on_grid
from domainbridge.evaluation.label_free import normalized_entropy
from domainbridge.models.segmenter import Segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.memory import enough_memory

__all__ = ["Ranking", "disagreement", "rank_images", "spread_out"]

_ADVICE = "On a GPU, --device cpu takes the machine's memory"


@dataclass(frozen=True)
class Ranking:
    """What the models say about every image.

    Attributes:
        disagreement: percent, float32 (images,).
        features: the models' mean features of each image, of unit length, float32 (images, channels).
    """

    disagreement: Tensor
    features: Tensor

    @property
    def tells_nothing(self) -> bool:
        """Whether the models agree on every pixel of every image."""
        return not self.disagreement.any()

    def choose(self, count: int) -> list[int]:
        """At most ``count`` positions, the most worthwhile image first; without disagreement the most different."""
        values = torch.ones_like(self.disagreement) if self.tells_nothing else self.disagreement
        return spread_out(values, self.features, count)


@torch.inference_mode()
def rank_images(
    models: Sequence[Segmenter], dataset: Dataset, runtime: Runtime, progress: Callable[[int, int], None]
) -> Ranking:
    """Walk the models over all images, one image in memory at a time.

    Args:
        models: one or two, in evaluation mode, on the runtime's device.
        dataset: images at the network's size.
        runtime: of one process.
        progress: called with (done, total) after every image.

    Raises:
        DataError: no image.
        TrainingError: an image does not fit into the device's memory.
    """
    if not len(dataset):
        raise DataError("the target has no images to choose from")
    values, features = [], []
    for done, sample in enumerate(ahead(dataset, range(len(dataset))), 1):
        with enough_memory(f"looking at {sample.name}", _ADVICE):
            image = image_on(runtime.device, sample.image)
            outputs = [model(image) for model in models]
            per_pixel = disagreement([on_grid(output.logits, image) for output in outputs])
            pooled = torch.cat([output.features.float().mean((2, 3))[0] for output in outputs])
        values.append(100 * per_pixel.mean().cpu())
        features.append((pooled / pooled.norm().clamp_min(1e-12)).cpu())
        progress(done, len(dataset))
    return Ranking(torch.stack(values), torch.stack(features))


def disagreement(logits: Sequence[Tensor]) -> Tensor:
    """Per pixel: 1 where two models predict different classes, else 0; of one model the normalized entropy.

    Args:
        logits: of one or two models, float32 (K, height, width) each.

    Returns:
        float32 (height, width) in [0, 1].
    """
    if len(logits) == 1:
        return normalized_entropy(logits[0])
    one, other = (each.argmax(0) for each in logits)
    return (one != other).float()


def spread_out(values: Tensor, features: Tensor, count: int) -> list[int]:
    """Greedy choice: first the largest value, then always the largest value * distance to the nearest chosen one.

    The distance is that of k-center (Sener and Savarese, ICLR 2018, arXiv 1708.00489). Of equal products the first
    counts.

    Args:
        values: float32 (images,), at least 0.
        features: float32 (images, channels).
        count: of images; all if there are fewer.

    Returns:
        Positions in the order of their choice, each once.
    """
    chosen: list[int] = []
    nearest = torch.full_like(values, math.inf)
    gain = values
    for _ in range(min(count, len(values))):
        gain = gain.clone()
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        nearest = torch.minimum(nearest, (features - features[best]).norm(dim=1))
        gain = values * nearest
    return chosen
