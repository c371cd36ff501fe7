"""Intervals of IoU and mIoU by a bootstrap over images, and of paired differences over the same images.

The images of a set are drawn with replacement; a resample's scores come from the sum of its images' confusion
matrices, as those of the set do. The interval holds the middle 95 % of the resamples (percentile bootstrap; Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). It says how far other images of the same kind could
move a score; it says nothing about other seeds. Images that are alike, such as frames of one video, make it too narrow:
the bootstrap takes them for independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbridge.seeding import numpy_generator

__all__ = ["LEVEL", "RESAMPLES", "Interval", "ScoreIntervals", "bootstrap", "image_iou", "miou_of"]

RESAMPLES = 1000
LEVEL = 0.95

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its interval, in percent or points; NaN where a class is neither labeled nor predicted."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return bool(np.isfinite(self.value))


@dataclass(frozen=True)
class ScoreIntervals:
    """mIoU and the IoU of every class."""

    miou: Interval
    iou: tuple[Interval, ...]


def bootstrap(counts: Counts, included: NDArray[np.bool_], baseline: Counts | None = None) -> ScoreIntervals:
    """Scores with their intervals, or differences to a baseline of the same images with theirs.

    Args:
        counts: int64 (N, K + 1, K + 1) per image: row = class of the label, the last one = no class; column = predicted
            class, the last one = no class.
        included: (K,), classes that the mean counts.
        baseline: counts of the other model, of the same images in the same order; None: no difference.
    """
    weights = _weights(len(counts))
    mean, classes = _scores(counts, weights, included)
    if baseline is not None:
        other_mean, other_classes = _scores(baseline, weights, included)
        mean, classes = mean - other_mean, classes - other_classes
    return ScoreIntervals(_interval(mean), tuple(_interval(values) for values in classes.T))


def image_iou(counts: Counts, included: NDArray[np.bool_]) -> Values:
    """mIoU of each image alone, in percent, over the classes that it shows or that are predicted: (N,)."""
    return miou_of(_iou(_totals(counts)), included)


def miou_of(iou: Values, included: NDArray[np.bool_]) -> Values:
    """Mean over the included classes that have an IoU; (..., K) to (...,)."""
    chosen = np.where(included, iou, np.nan)
    present = np.isfinite(chosen).sum(-1)
    return np.where(present, np.nansum(chosen, -1) / np.maximum(present, 1), np.nan)


def _weights(images: int) -> Values:
    """How often each resample draws each image, (RESAMPLES + 1, N); the first row is the set itself."""
    if not images:
        return np.ones((1, 0))
    draws = numpy_generator(0, "bootstrap", images).multinomial(images, np.full(images, 1 / images), RESAMPLES)
    return np.concatenate([np.ones((1, images)), draws.astype(np.float64)])


def _totals(counts: Counts) -> Values:
    """Pixels right, labeled and predicted per image and class: (N, 3, K); pixels without a label do not count."""
    labeled = counts[:, :-1]
    right = np.diagonal(labeled[:, :, :-1], axis1=1, axis2=2)
    return np.stack([right, labeled.sum(2), labeled[:, :, :-1].sum(1)], 1).astype(np.float64)


def _scores(counts: Counts, weights: Values, included: NDArray[np.bool_]) -> tuple[Values, Values]:
    """(mIoU, IoU) of the set and of every resample: (R + 1,) and (R + 1, K), in percent."""
    totals = _totals(counts)
    summed = np.tensordot(weights, totals, 1)  # exact: whole numbers below 2**53
    iou = _iou(summed)
    return miou_of(iou, included), iou


def _iou(totals: Values) -> Values:
    right, labeled, predicted = totals[..., 0, :], totals[..., 1, :], totals[..., 2, :]
    union = labeled + predicted - right
    return np.where(union > 0, 100 * right / np.maximum(union, 1), np.nan)


def _interval(values: Values) -> Interval:
    """The first value, with the middle of the others that exist."""
    resampled = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or not len(resampled):
        return Interval(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))
