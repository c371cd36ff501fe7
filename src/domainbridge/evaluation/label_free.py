"""Scores that need no label, as pure functions: tensors in, floats out, all in percent.

A :class:`Tally` is what is summed over the pixels of some images; every score is read off a tally. So memory does not
grow with the number of images, and tallies of several processes add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = [
    "BINS",
    "Calibration",
    "Tally",
    "average_thresholded_confidence",
    "calibrated",
    "chance_corrected_agreement",
    "confidence_bins",
    "mean_agreement",
    "normalized_entropy",
    "pixel_agreement",
    "total_variation",
]

BINS = 1024
"""Bins of confidence, even in log(1 - confidence): networks are rarely unsure, so most pixels lie near 1."""
_SMALLEST = 1e-7
"""Distance from 1 that float32 can tell."""


def normalized_entropy(logits: Tensor) -> Tensor:
    """Entropy of the class probabilities / log K: 0 for one sure class, 1 for equal ones.

    Args:
        logits: float32 (K, ...).

    Returns:
        float32 (...).
    """
    log_probabilities = logits.log_softmax(0)
    entropy: Tensor = -(log_probabilities.exp() * log_probabilities).sum(0)
    return entropy / math.log(len(logits))


def confidence_bins(confidence: Tensor) -> Tensor:
    """Pixels per bin of the largest class probability, float64 (BINS,), from the least confident bin on.

    Args:
        confidence: float32 in [0, 1], any shape.
    """
    distance = (1 - confidence.double()).clamp(_SMALLEST, 1).log() / math.log(_SMALLEST)
    bins = (distance * BINS).long().clamp_max(BINS - 1)
    return torch.bincount(bins.flatten(), minlength=BINS).double()


def average_thresholded_confidence(bins: Tensor, accuracy: float, others: Tensor) -> float:
    """Predicted accuracy of other images: ATC with the largest probability (Garg et al., ICLR 2022, arXiv 2201.04234).

    The threshold is that above which as many labeled source pixels are confident as are right. The prediction is the
    share of the other images' pixels above the threshold. Inside a bin, pixels count as evenly spread.

    Args:
        bins: of the labeled source pixels, as :func:`confidence_bins` gives them.
        accuracy: share of these pixels that are right, in percent.
        others: bins of the other images.

    Returns:
        Percent.
    """
    below = torch.cat([bins.new_zeros(1), bins.cumsum(0)]) / bins.sum()
    edges = torch.arange(BINS + 1, dtype=torch.float64)
    threshold = _interpolated(torch.tensor(1 - accuracy / 100, dtype=torch.float64), below, edges)
    others_below = torch.cat([others.new_zeros(1), others.cumsum(0)]) / others.sum()
    return 100 * (1 - float(_interpolated(threshold, edges, others_below)))


def _interpolated(at: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    """The value at a place between the points (xs, ys); xs do not fall."""
    right = int(torch.searchsorted(xs, at).clamp(1, len(xs) - 1))
    width = xs[right] - xs[right - 1]
    share = (at - xs[right - 1]) / width if width > 0 else torch.ones_like(at)
    return ys[right - 1] + share.clamp(0, 1) * (ys[right] - ys[right - 1])


def pixel_agreement(matrix: Tensor) -> float:
    """Percent of the pixels for which two predictions have the same class.

    Args:
        matrix: pixels, (K, K): row = class of one prediction, column = class of the other.
    """
    return 100 * float(matrix.double().diagonal().sum() / matrix.double().sum())


def mean_agreement(matrix: Tensor) -> float:
    """Mean over the classes of intersection / union of two predictions, in percent.

    Args:
        matrix: as for :func:`pixel_agreement`; classes that neither prediction has are left out.
    """
    counts = matrix.double()
    both = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - both
    return 100 * float((both[union > 0] / union[union > 0]).mean())


def chance_corrected_agreement(matrix: Tensor) -> float:
    """Cohen's kappa of two predictions, in percent (Cohen, 1960): 0 for what chance gives, 100 for equal predictions.

    Two predictions of one class everywhere agree by chance alone: 0.

    Args:
        matrix: pixels, (K, K): row = class of one prediction, column = class of the other.
    """
    counts = matrix.double() / matrix.sum()
    chance = float((counts.sum(0) * counts.sum(1)).sum())
    return 100 * (float(counts.diagonal().sum()) - chance) / (1 - chance) if chance < 1 else 0.0


def total_variation(counts: Tensor, others: Tensor) -> float:
    """Half the sum of the differences of two distributions over classes, in percent: 0 equal, 100 without overlap.

    Args:
        counts: pixels per class, (K,).
        others: likewise.
    """
    return 50 * float((counts.double() / counts.sum() - others.double() / others.sum()).abs().sum())


@dataclass(frozen=True)
class Calibration:
    """A line through (score, mIoU) of labeled images under synthetic shifts, read at the target's score.

    Attributes:
        value: mIoU in percent, within [0, 100].
        error: largest error of the line for a shift that was left out when it was fitted; in percent.
    """

    value: float
    error: float


def calibrated(scores: Sequence[float], mious: Sequence[float], score: float) -> Calibration | None:
    """Least squares over the shifts; None with fewer than three points, or without any spread of the scores.

    Args:
        scores: label-free score of each shift, in percent.
        mious: true mIoU of each shift, in percent.
        score: of the target.
    """
    xs, ys = (torch.tensor(list(values), dtype=torch.float64) for values in (scores, mious))
    if len(xs) < 3 or float(xs.max() - xs.min()) < 1e-6:
        return None
    errors = [
        abs(_line(xs[kept], ys[kept], float(xs[left_out])) - float(ys[left_out]))
        for left_out in range(len(xs))
        for kept in [[number for number in range(len(xs)) if number != left_out]]
    ]
    return Calibration(min(max(_line(xs, ys, score), 0.0), 100.0), max(errors))


def _line(xs: Tensor, ys: Tensor, at: float) -> float:
    """The least-squares line at a place; the mean where the xs are all equal."""
    centered = xs - xs.mean()
    square = centered.square().sum()
    slope = (centered * (ys - ys.mean())).sum() / square if square > 0 else torch.zeros(())
    return float(ys.mean() + slope * (at - xs.mean()))


@dataclass
class Tally:
    """Sums over the pixels of images, float64; ``a += b`` adds those of other images.

    Attributes:
        classes: predicted pixels per class, (K,).
        entropy: sum of the normalized entropy, ().
        confidence: sum of the largest probability, ().
        bins: pixels per bin of confidence, (BINS,).
        flip_consistency: pixels with the same class in the mirrored image, ().
        jitter_consistency: pixels with the same class in the image of other colors, ().
        prototype_agreement: pixels whose nearest prototype is that of the predicted class, ().
        reference: row = predicted class, column = class that the other model predicts, (K, K); zero without one.
    """

    classes: Tensor
    entropy: Tensor
    confidence: Tensor
    bins: Tensor
    flip_consistency: Tensor
    jitter_consistency: Tensor
    prototype_agreement: Tensor
    reference: Tensor

    @classmethod
    def empty(cls, num_classes: int, device: torch.device) -> "Tally":
        """Of no image."""
        shapes: dict[str, tuple[int, ...]] = {"classes": (num_classes,), "bins": (BINS,)}
        shapes["reference"] = (num_classes, num_classes)
        return cls(
            **{
                field.name: torch.zeros(shapes.get(field.name, ()), dtype=torch.float64, device=device)
                for field in fields(cls)
            }
        )

    def scores(self, source_classes: Tensor) -> dict[str, float]:
        """Scores of the images, in percent; ``agreement`` only with another model, the last two only with labels.

        Args:
            source_classes: labeled source pixels per class, (K,).
        """
        pixels = float(self.classes.sum())
        result = {}
        if self.reference.any():
            result["agreement"] = mean_agreement(self.reference)
            result["pixel_agreement"] = pixel_agreement(self.reference)
        for name in ("confidence", "entropy", "flip_consistency", "jitter_consistency"):
            result[name] = 100 * float(getattr(self, name)) / pixels
        if source_classes.any():
            result["class_shift"] = total_variation(self.classes, source_classes)
            result["prototype_agreement"] = 100 * float(self.prototype_agreement) / pixels
        return result
