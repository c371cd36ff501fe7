"""Lists of files as samples."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.decode import read_image
from domainbridge.data.label_files import LabelDecoder
from domainbridge.data.transforms import ResizeRule, resize_image, resize_label
from domainbridge.errors import DataError
from domainbridge.types import Sample

__all__ = ["Concatenated", "FileSamples", "Samples", "ahead", "check_same_size", "in_threads"]

_THREADS = min(os.cpu_count() or 1, 8)
_AHEAD = 2 * _THREADS
"""Samples being decoded while another is worked on."""

Result = TypeVar("Result")


class Samples(Protocol):
    """Anything that has a length and can load its i-th sample."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def load(self, index: int) -> Sample:
        """Decode sample ``index``, 0 <= index < len."""
        ...

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample ``index`` alone."""
        ...


@dataclass(frozen=True)
class FileSamples:
    """Images on disk, resized when loaded.

    Attributes:
        name: of the domain, for messages.
        images: paths.
        labels: paths in the same order, or None for an unlabelled domain.
        decoder: how label files become train ids; None exactly when ``labels`` is.
        resize: target size, or None to keep the stored size.
        resize_labels: False keeps labels at their stored size, as scoring wants them ...
        label_scale: ... times this (nearest neighbour), where the published evaluation halves them.
        notes: what was noticed when the files were listed.
    """

    name: str
    images: Sequence[Path]
    labels: Sequence[Path] | None = None
    decoder: LabelDecoder | None = None
    resize: ResizeRule | None = None
    resize_labels: bool = True
    label_scale: float = 1.0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Sample:
        """Decode and resize sample ``index``.

        Raises:
            DataError: a file is unreadable, or the label does not fit its image or its space.
        """
        path = self.images[index]
        image = read_image(path)
        label = None
        if self.labels is not None:
            stored = self._stored_label(index)
            check_same_size(path, image.shape[:2], self.labels[index], stored.shape)
            label = self._resized_label(stored)
        if self.resize is not None:
            image = resize_image(image, self.resize.size_for(*image.shape[:2]))
        return Sample(image, label, str(path))

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample ``index`` alone, as :meth:`load` gives it; its image is not opened.

        Raises:
            DataError: the label is unreadable or does not fit its space.
        """
        return self._resized_label(self._stored_label(index))

    def _stored_label(self, index: int) -> NDArray[np.uint8]:
        assert self.labels is not None
        assert self.decoder is not None
        return self.decoder.read(self.labels[index])

    def _resized_label(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.resize is not None and self.resize_labels:
            label = resize_label(label, self.resize.size_for(*label.shape))
        if self.label_scale != 1:
            height, width = label.shape
            scaled = max(round(height * self.label_scale), 1), max(round(width * self.label_scale), 1)
            label = resize_label(label, scaled)
        return label


def check_same_size(image: Path, image_size: tuple[int, ...], label: Path, label_size: tuple[int, ...]) -> None:
    """Sizes are (height, width).

    Raises:
        DataError: they differ.
    """
    if image_size != label_size:
        raise DataError(
            f"{label}: {label_size[1]}x{label_size[0]} pixels, but its image {image} has "
            f"{image_size[1]}x{image_size[0]}; they must be equal: mend the pair, or leave it out with exclude"
        )


@dataclass(frozen=True)
class Concatenated:
    """Several domains one after the other."""

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def load(self, index: int) -> Sample:
        """Load from the domain that ``index`` falls into."""
        part, within = self._place(index)
        return part.load(within)

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """Likewise, the label alone."""
        part, within = self._place(index)
        return part.load_label(within)

    def _place(self, index: int) -> tuple[Samples, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise AssertionError("index beyond the last domain")


def ahead(samples: Samples, indices: Iterable[int]) -> Iterator[Sample]:
    """The samples of ``indices`` in order; threads decode the next few while one is worked on."""
    return in_threads(samples.load, indices)


def in_threads(work: Callable[[int], Result], indices: Iterable[int]) -> Iterator[Result]:
    """``work`` done for each index, in order, a few ahead of what has been asked for."""
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        for index in indices:
            waiting.append(pool.submit(work, index))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
