"""One confusion matrix per data set, and the scores read off it (golden h_metrics)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from domainbridge.types import IGNORE

__all__ = ["Scores", "confusion_matrix", "scores"]


def confusion_matrix(label: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Pixel counts, int64 (K, K + 1): row = label, column = prediction, the last column = no class at all.

    Args:
        label: int64, any shape; 255 is not counted.
        prediction: int64, same shape; a value >= K (such as 255) counts in the last column.
        num_classes: K.
    """
    counted = label != IGNORE
    columns = num_classes + 1
    cells = label[counted] * columns + prediction[counted].clamp_max(num_classes)
    return torch.bincount(cells, minlength=num_classes * columns).view(num_classes, columns)


@dataclass(frozen=True)
class Scores:
    """Scores of one validation set, in percent.

    Attributes:
        iou: per class, intersection / union; None where a class is neither labelled nor predicted.
        miou: mean of the IoUs that exist and are not excluded; None when there is none.
        accuracy: share of labelled pixels predicted right.
        images: how many were scored.
    """

    iou: dict[str, float | None]
    miou: float | None
    accuracy: float | None
    images: int


def scores(matrix: Tensor, classes: tuple[str, ...], images: int, exclude: tuple[str, ...] = ()) -> Scores:
    """Read the scores off a confusion matrix.

    Args:
        matrix: int64 (K, K + 1), as :func:`confusion_matrix` gives it, summed over the set.
        classes: K names.
        images: how many were scored.
        exclude: classes that the mean leaves out, e.g. those without source pixels.
    """
    counts = matrix.double()
    right = counts.diagonal()
    union = counts.sum(1) + counts[:, :-1].sum(0) - right
    percent = [None if u == 0 else 100 * r / u for r, u in zip(right.tolist(), union.tolist(), strict=True)]
    iou = dict(zip(classes, percent, strict=True))
    meant = [value for name, value in iou.items() if value is not None and name not in exclude]
    total = counts.sum().item()
    return Scores(
        iou=iou,
        miou=sum(meant) / len(meant) if meant else None,
        accuracy=100 * right.sum().item() / total if total else None,
        images=images,
    )
