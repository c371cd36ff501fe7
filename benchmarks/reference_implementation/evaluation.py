"""Scoring with everything at full size, all predictions kept until the end, one histogram per image and class pass."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from domainbridge.types import Sample

__all__ = ["mean_iou"]


def mean_iou(network: nn.Module, samples: Iterable[Sample], num_classes: int) -> float:
    """In percent; the network is in evaluation mode."""
    predictions, labels = [], []
    for sample in samples:
        assert sample.label is not None
        image = torch.from_numpy(sample.image.astype(np.float32).transpose(2, 0, 1).copy())[None] / 255
        with torch.no_grad():
            logits = network(image).logits
            logits = F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)
            logits = F.interpolate(logits, sample.label.shape, mode="bilinear", align_corners=False)
            predictions.append(torch.softmax(logits, 1).argmax(1)[0].numpy())
        labels.append(sample.label.astype(np.int64))
    return _mean_iou(predictions, labels, num_classes)


def _mean_iou(predictions: list[NDArray[np.int64]], labels: list[NDArray[np.int64]], num_classes: int) -> float:
    intersections, unions = np.zeros(num_classes), np.zeros(num_classes)
    for prediction, label in zip(predictions, labels, strict=True):
        counted = label != 255
        prediction, label = prediction[counted], label[counted]
        bins = np.arange(num_classes + 1)
        both = np.histogram(prediction[prediction == label], bins)[0]
        intersections += both
        unions += np.histogram(prediction, bins)[0] + np.histogram(label, bins)[0] - both
    present = unions > 0
    return float(100 * (intersections[present] / unions[present]).mean())
