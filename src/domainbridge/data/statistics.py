"""How often classes occur, and how often to draw them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.samples import Concatenated, FileSamples, in_threads
from domainbridge.types import IGNORE

__all__ = ["RareClasses", "class_counts", "counts_of_samples", "rare_class_probabilities"]


def class_counts(label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pixels per train id, int64 (255,); ignored pixels are not counted."""
    return np.bincount(label.ravel(), minlength=256)[:IGNORE]


def rare_class_probabilities(
    counts: NDArray[np.int64], temperature: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rare class sampling (Hoyer et al., DAFormer, arXiv 2111.14887, eq. 5): P(c) ~ exp((1 - f_c) / T).

    Args:
        counts: pixels per class over a whole set, int64 (classes,); classes with none are left out.
        temperature: T; small values draw the rare classes only.

    Returns:
        The classes that occur, rarest first, and their probabilities, float32.
    """
    present = np.flatnonzero(counts)
    classes = present[np.argsort(counts[present], kind="stable")]
    frequency = (counts[classes] / counts.sum()).astype(np.float32)
    exponent = (1 - frequency) / np.float32(temperature)
    unnormalised = np.exp(exponent - exponent.max())
    return classes, (unnormalised / unnormalised.sum()).astype(np.float32)


def counts_of_samples(samples: FileSamples | Concatenated, num_classes: int) -> NDArray[np.int64]:
    """Pixels per sample and class, int64 (samples, num_classes + 1), the last column without class.

    Images are not opened.
    """

    def counts(index: int) -> NDArray[np.int64]:
        label = samples.load_label(index)
        of_classes = class_counts(label)[:num_classes]
        return np.append(of_classes, label.size - of_classes.sum())

    table = np.empty((len(samples), num_classes + 1), np.int64)
    for row, found in enumerate(in_threads(counts, range(len(samples)))):
        table[row] = found
    return table


@dataclass(frozen=True)
class RareClasses:
    """Draws a class, then an image that shows enough of it.

    Attributes:
        counts: pixels per sample and train id, int64 (samples, classes).
        temperature: see :func:`rare_class_probabilities`.
        min_share: share of an image's labelled pixels that counts as "shows".
    """

    counts: NDArray[np.int64]
    temperature: float
    min_share: float

    @property
    def shown(self) -> bool:
        """Whether an image shows enough of any class."""
        return len(self._index[0]) > 0

    def draw(self, generator: np.random.Generator) -> tuple[int, int]:
        """(train id, sample index); a class that no image shows enough of is never drawn."""
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
