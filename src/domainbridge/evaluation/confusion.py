"""One confusion matrix per data set, and the scores read off it (docs/method.md, sections 7 and 10)."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["Scores", "confusion_matrix", "pixel_counts", "scores"]


def confusion_matrix(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Pixel counts, int64 (K, K + 1): row = label, column = prediction, the last column = no class at all.

    Args:
        label: int64, any shape; 255, like any other value >= K, is not counted.
        prediction: int64, same shape; a value >= K (such as 255) counts in the last column.
        num_classes: K.
    """
    return pixel_counts(label, prediction, num_classes)[:num_classes]


def pixel_counts(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """The confusion matrix with a last row for the pixels without a class in the label: int64 (K + 1, K + 1).

    Arguments as for :func:`confusion_matrix`. The sum over the rows is what was predicted on all pixels.
    """
    columns = num_classes + 1
    # Ignored pixels in a row of their own: cheaper than leaving them out one by one.
    cells = label.clamp_max(num_classes) * columns + prediction.clamp_max(num_classes)
    return _counts(cells.flatten(), columns * columns).view(columns, columns)


def _counts(values: Tensor, number: int) -> Tensor:
    """How often each of 0 ... number - 1 occurs, int64 (number,)."""
    if values.is_cuda:  # bincount would wait for the device to learn the largest value
        return torch.histc(values, number, 0, number)
    return torch.bincount(values, minlength=number)


@dataclass(frozen=True)
class Scores:
    """Scores of one validation set, in percent.

    Attributes:
        iou: per class, intersection / union; None where a class is neither labeled nor predicted.
        miou: mean of the IoUs that exist and are not excluded; None when there is none.
        accuracy: share of labeled pixels predicted right.
        images: how many were scored.
        subsets: mean over the classes of each named subset, e.g. the 16 and 13 classes that SYNTHIA has.
        ignored: share of the pixels without a class in the labels, which no score counts; None in results of versions
            that did not count them.
    """

    iou: dict[str, float | None]
    miou: float | None
    accuracy: float | None
    images: int
    subsets: dict[str, float | None] = field(default_factory=dict)
    ignored: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values: the form of results.json, of evaluation.json and of ``evaluate --json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Scores":
        """The opposite of ``to_json``."""
        return cls(**content)


def scores(
    matrix: Tensor,
    classes: tuple[str, ...],
    images: int,
    exclude_classes: tuple[str, ...] = (),
    subsets: Mapping[str, tuple[str, ...]] | None = None,
    pixels: int | None = None,
) -> Scores:
    """Read the scores off a confusion matrix.

    Args:
        matrix: int64 (K, K + 1), as :func:`confusion_matrix` gives it, summed over the set.
        classes: K names.
        images: how many were scored.
        exclude_classes: classes that the mean leaves out, e.g. those without source pixels.
        subsets: name -> classes of a further mean.
        pixels: number of all pixels of the set, with and without a class.
    """
    counts = matrix.double()
    right = counts.diagonal()
    union = counts.sum(1) + counts[:, :-1].sum(0) - right
    percent = [None if u == 0 else 100 * r / u for r, u in zip(right.tolist(), union.tolist(), strict=True)]
    iou = dict(zip(classes, percent, strict=True))
    labeled_pixels = counts.sum().item()
    return Scores(
        iou=iou,
        miou=_mean(iou[name] for name in classes if name not in exclude_classes),
        accuracy=100 * right.sum().item() / labeled_pixels if labeled_pixels else None,
        images=images,
        subsets={name: _mean(iou[member] for member in members) for name, members in (subsets or {}).items()},
        ignored=100 * (1 - labeled_pixels / pixels) if pixels else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that exist; None when there is none."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
