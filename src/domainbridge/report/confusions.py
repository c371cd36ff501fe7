"""The confusion matrix of a stage, as shares of each labeled class."""

from dataclasses import dataclass

import numpy as np

from domainbridge.report.run_facts import StageFacts

__all__ = ["Confusions", "confusions"]

_MOST_PAIRS = 8
_MOST_CLASSES = 40
"""Of a drawn matrix; beyond, only the largest confusions are listed."""


@dataclass(frozen=True)
class Confusions:
    """Of one target.

    Attributes:
        target: name.
        classes: names of the rows: classes that the labels have.
        columns: names of the columns.
        rows: share of a row's pixels per column, 0 .. 1; empty for very many classes.
        largest: (labeled class, predicted class, share of the labeled class, share of all pixels), the most pixels
            first.
    """

    target: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    largest: tuple[tuple[str, str, float, float], ...]


def confusions(stage: StageFacts, target: str) -> Confusions | None:
    """The matrix of a stage on a target with labels; None when no counts were kept."""
    counts = stage.counts(target)
    if counts is None or not counts.labeled or stage.images is None:
        return None
    names = (*stage.images.classes, "no class")
    matrix = counts.counts[:, :-1].sum(0).astype(np.float64)
    total = matrix.sum()
    present = [number for number in range(len(names) - 1) if matrix[number].sum()]
    predicted = [number for number in range(len(names)) if number in present or matrix[:, number].sum()]
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = [divmod(cell, len(names)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS].tolist()]
    largest = [
        (names[row], names[column], float(wrong[row, column] / matrix[row].sum()), float(wrong[row, column] / total))
        for row, column in order
        if wrong[row, column]
    ]
    small = len(names) <= _MOST_CLASSES
    rows = [tuple((matrix[row, predicted] / matrix[row].sum()).tolist()) for row in present] if small else []
    return Confusions(
        target, tuple(names[n] for n in present), tuple(names[n] for n in predicted), tuple(rows), tuple(largest)
    )
