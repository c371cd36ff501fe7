"""Class centroids from features at full resolution: a masked mean per image and class, folded in one at a time."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Centroids"]


class Centroids:
    """Running means per class; the count is capped."""

    def __init__(self, num_classes: int, channels: int, min_pixels: int = 10, max_count: int = 3000) -> None:
        self.vectors = torch.zeros(num_classes, channels)
        self.counts = torch.zeros(num_classes)
        self.min_pixels, self.max_count = min_pixels, max_count

    def add(self, logits: Tensor, features: Tensor, size: tuple[int, int]) -> None:
        """Fold in a batch: logits and features at the network's resolution."""
        prediction = F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)
        enlarged = F.interpolate(features, size, mode="bilinear", align_corners=False)
        for sample, classes in zip(enlarged, prediction, strict=True):
            for number in range(len(self.vectors)):
                mask = classes == number
                if mask.sum().item() < self.min_pixels:
                    continue
                mean = (sample * mask).sum((1, 2)) / mask.sum()
                count = min(float(self.counts[number]), self.max_count)
                self.vectors[number] = (self.vectors[number] * count + mean) / (count + 1)
                self.counts[number] = min(count + 1, self.max_count)
