"""How often classes occur, and how often to draw them."""

import numpy as np
from numpy.typing import NDArray

from domainbridge.types import IGNORE

__all__ = ["class_counts", "rare_class_probabilities"]


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
