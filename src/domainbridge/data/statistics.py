"""Class frequencies of labels, and rare class sampling."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.dataset import ConcatDataset, FileDataset
from domainbridge.data.threads import in_threads
from domainbridge.types import IGNORE

__all__ = ["RareClasses", "class_counts", "counts_of_samples", "rare_class_probabilities"]


def class_counts(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels per train id, int64 (255,); ignored pixels are not counted."""
    return np.bincount(label.ravel(), minlength=256)[:IGNORE]


def rare_class_probabilities(
    counts: NDArray[np.int64], temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class probabilities of rare class sampling: P(c) ~ exp((1 - f_c) / T) (DAFormer, arXiv 2111.14887, eq. 5).

    Args:
        counts: pixels per class of a whole data set, int64 (classes,); classes without pixels are left out.
        temperature: T; a small value draws rare classes only.

    Returns:
        The classes with pixels, rarest first, and their probabilities, float32.
    """
    present = np.flatnonzero(counts)
    classes = present[np.argsort(counts[present], kind="stable")]
    frequency = (counts[classes] / counts.sum()).astype(np.float32)
    exponent = (1 - frequency) / np.float32(temperature)
    unnormalized = np.exp(exponent - exponent.max())
    return classes, (unnormalized / unnormalized.sum()).astype(np.float32)


def counts_of_samples(dataset: FileDataset | ConcatDataset, num_classes: int) -> NDArray[np.int64]:
    """Pixels per sample and class, int64 (samples, num_classes + 1); the last column counts pixels without a class.

    Images are not opened.
    """

    def counts(index: int) -> NDArray[np.int64]:
        label = dataset.load_label(index)
        of_classes = class_counts(label)[:num_classes]
        return np.append(of_classes, label.size - of_classes.sum())

    table = np.empty((len(dataset), num_classes + 1), np.int64)
    for row, row_counts in enumerate(in_threads(counts, range(len(dataset)))):
        table[row] = row_counts
    return table


@dataclass(frozen=True)
class RareClasses:
    """Draws a class, then an image that shows enough of the class.

    Attributes:
        counts: pixels per sample and train id, int64 (samples, classes).
        temperature: as for :func:`rare_class_probabilities`.
        min_share: an image shows a class on at least this share of its labeled pixels.
    """

    counts: NDArray[np.int64]
    temperature: float
    min_share: float

    @property
    def shown(self) -> bool:
        """Whether an image shows enough of any class."""
        return len(self._index[0]) > 0

    def draw(self, generator: np.random.Generator) -> tuple[int, int]:
        """(train id, sample index); a class is never drawn if no image shows enough of the class."""
        classes, cumulative, members = self._index
        position = int(np.searchsorted(cumulative, generator.random(), side="right"))
        position = min(position, len(classes) - 1)
        of_class = members[position]
        return int(classes[position]), int(of_class[generator.integers(len(of_class))])

    @cached_property
    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.float64], list[NDArray[np.intp]]]:
        classes, probabilities = rare_class_probabilities(self.counts.sum(0), self.temperature)
        enough = self.counts >= self.min_share * self.counts.sum(1, keepdims=True)
        shown = np.array([enough[:, c].any() for c in classes])
        classes, probabilities = classes[shown], probabilities[shown]
        members = [np.flatnonzero(enough[:, c]) for c in classes]
        return classes, np.cumsum(probabilities / probabilities.sum(), dtype=np.float64), members
