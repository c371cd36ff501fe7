"""Ensemble weights and pseudo-labels from features at full resolution, class by class and sample by sample."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference_implementation.self_training import loss_at_full_size, photometric
from domainbridge.types import Batch

__all__ = ["DistillationStep", "mean_ratings", "pseudo_label", "weights_of_prototypes"]


def weights_of_prototypes(features: Tensor, prototypes: Tensor, size: tuple[int, int]) -> Tensor:
    """(batch, classes, *size) from features (batch, channels, h, w) and prototypes (classes, channels)."""
    enlarged = F.interpolate(features, size, mode="bilinear", align_corners=False)
    weights = []
    for sample in enlarged:
        distances = torch.stack(
            [(sample - prototype[:, None, None]).square_().sum(0).sqrt() for prototype in prototypes]
        )
        nearest = distances.min(0).values
        weights.append(torch.softmax(-(distances - nearest), 0))
    return torch.stack(weights)


def mean_ratings(opinions: list[tuple[Tensor, Tensor, Tensor]], size: tuple[int, int]) -> Tensor:
    """Mean over teachers of weight * probability; an opinion is (logits, features, prototypes)."""
    ratings = []
    for logits, features, prototypes in opinions:
        enlarged = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        ratings.append(weights_of_prototypes(features, prototypes, size) * torch.softmax(enlarged, 1))
    return sum(ratings[1:], ratings[0]) / len(ratings)


def pseudo_label(opinions: list[tuple[Tensor, Tensor, Tensor]], size: tuple[int, int]) -> Tensor:
    """The class with the highest mean rating, int64 (batch, *size)."""
    return mean_ratings(opinions, size).argmax(1)


class DistillationStep:
    """Student, frozen teachers with prototypes, and optimizer; a call is a step."""

    def __init__(
        self, student: nn.Module, teachers: list[tuple[nn.Module, Tensor]], optimizer: torch.optim.Optimizer
    ) -> None:
        self.student, self.teachers, self.optimizer = student, teachers, optimizer

    def __call__(self, batch: Batch) -> dict[str, float]:
        size = batch.target_image.shape[-2:]
        self.optimizer.zero_grad()
        source = loss_at_full_size(self.student(batch.source_image).logits, batch.source_label)
        source.backward()
        with torch.no_grad():
            opinions = [(*teacher(batch.target_image), prototypes) for teacher, prototypes in self.teachers]
            label = pseudo_label(opinions, size)
        image = torch.cat([photometric(sample[None]) for sample in batch.target_image])
        target = loss_at_full_size(self.student(image).logits, label)
        target.backward()
        self.optimizer.step()
        return {"source": source.item(), "target": target.item()}
