"""Data sets: lists of files as samples."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.bands import ImageRule
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.headers import read_header
from domainbridge.data.labels import LabelDecoder
from domainbridge.data.threads import in_threads
from domainbridge.data.transforms import ResizeRule, ScaleRule, resize_image, resize_label
from domainbridge.errors import FileError
from domainbridge.types import Sample

__all__ = ["ConcatDataset", "Dataset", "FileDataset", "ahead", "check_same_size", "evenly_spread"]


class Dataset(Protocol):
    """A sequence of samples, each decoded on access."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Sample ``index``, 0 <= index < len."""
        ...

    def load_label(self, index: int, /) -> NDArray[np.uint8]:
        """Label of sample ``index``, without its image."""
        ...


@dataclass(frozen=True)
class FileDataset:
    """Image files, with or without label files, resized on access.

    Attributes:
        name: name of the domain, for messages.
        images: paths.
        labels: paths in the same order; None for an unlabeled domain.
        decoder: from label files to train ids; None exactly if ``labels`` is None.
        resize: target size; None keeps the size of the file.
        resize_labels: False keeps labels at the size of the file, as scoring needs.
        label_scale: factor on the size of labels (nearest neighbor); the published evaluation halves some labels.
        notes: remarks from the listing of the files.
        image_rule: how image files become 8-bit RGB.
        label_resize: bring labels of another size to the size of their images, nearest neighbor.
        classes: names of the train ids that the labels may have, for messages.
        published: with the published pipeline's nearest neighbor, whose cells are aligned at their corners.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None = None
    decoder: LabelDecoder | None = None
    resize: ResizeRule | ScaleRule | None = None
    resize_labels: bool = True
    label_scale: float = 1.0
    notes: tuple[str, ...] = ()
    image_rule: ImageRule = ImageRule()
    label_resize: bool = False
    published: bool = False
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Decode and resize sample ``index``.

        Raises:
            DataError: a file is unreadable, or the label does not fit its image or its label space.
        """
        path = self.images[index]
        image = self.read_image(index)
        label = None
        if self.labels is not None:
            values = self._decode_label(index, (image.shape[0], image.shape[1]))
            check_same_size(path, image.shape[:2], self.labels[index], values.shape)
            label = self._resize_label(values)
        if self.resize is not None:
            image = resize_image(image, self.resize.size_for(*image.shape[:2]))
        return Sample(image, label, str(path))

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """Label of sample ``index``, equal to the label in ``self[index]``; the image file is not opened.

        Raises:
            DataError: the label is unreadable or does not fit its label space.
        """
        return self._resize_label(self._decode_label(index))

    def read_image(self, index: int) -> NDArray[np.uint8]:
        """Image of sample ``index`` at its stored size.

        Raises:
            DataError: the file is unreadable.
        """
        return read_image(self.images[index], self.image_rule)

    def _decode_label(self, index: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The label at its stored size, or with ``label_resize`` at the image's; ``size``: the image's, if known."""
        assert self.labels is not None
        assert self.decoder is not None
        label = self.decoder.read(self.labels[index])
        if self.label_resize:
            label = resize_label(label, size or image_size(self.images[index], self.image_rule))
        return label

    def _resize_label(self, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.resize is not None and self.resize_labels:
            label = resize_label(label, self.resize.size_for(*label.shape), published=self.published)
        if self.label_scale != 1:
            height, width = label.shape
            scaled = max(round(height * self.label_scale), 1), max(round(width * self.label_scale), 1)
            label = resize_label(label, scaled, published=True)  # no other pipeline scores reduced labels
        return label


def check_same_size(image: Path, image_size: tuple[int, ...], label: Path, label_size: tuple[int, ...]) -> None:
    """Check that image and label have the same size; sizes are (height, width).

    Raises:
        FileError: the sizes differ.
    """
    if image_size == label_size:
        return
    advice = "correct the files, or list the stem in exclude_files"
    group = "label and image have other sizes"
    if label_size == image_size[::-1] and not _turned_by_exif(image):
        advice = "the label lies on its side, and no EXIF data turn the image: exchange rows and columns of the label"
        group = "labels lie on their side"
    elif label_size == image_size[::-1]:
        advice = (
            "the label seems to be stored as the camera took the image, which EXIF data turn; set exif: raw, or turn "
            "the label"
        )
        group = "label and image are turned against each other (EXIF)"
    elif _whole_ratio(image_size, label_size) or _whole_ratio(label_size, image_size):
        advice = "set label_resize: true to bring labels to the size of the images"
        group = "labels have a whole fraction of the image's size"
    raise FileError(
        label,
        f"{label_size[1]}x{label_size[0]} pixels, but its image {image} has {image_size[1]}x{image_size[0]}. Both "
        f"sizes must be equal: {advice}",
        group,
    )


def _turned_by_exif(image: Path) -> bool:
    """Whether EXIF data of the image exchange its width and height, whatever the recipe makes of these data."""
    try:
        return read_header(image).orientation >= 5
    except FileError:
        return False


def _whole_ratio(large: tuple[int, ...], small: tuple[int, ...]) -> bool:
    """Whether one size is a whole multiple of the other, up to the rounding of an odd size."""
    factor = round(large[0] / max(small[0], 1))
    return factor > 1 and all(abs(a - factor * b) < factor for a, b in zip(large, small, strict=True))


@dataclass(frozen=True)
class ConcatDataset:
    """Several domains, one after the other."""

    parts: tuple[Dataset, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``, counted through all parts."""
        part, offset = self._locate(index)
        return part[offset]

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """Label of sample ``index``, without its image."""
        part, offset = self._locate(index)
        return part.load_label(offset)

    def _locate(self, index: int) -> tuple[Dataset, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError("index beyond the last domain")


def evenly_spread(count: int, at_most: int) -> list[int]:
    """At most ``at_most`` of ``count`` positions, from the first on."""
    kept = min(count, at_most)
    return [count * number // kept for number in range(kept)]


def ahead(dataset: Dataset, indices: Iterable[int]) -> Iterator[Sample]:
    """Samples of ``indices`` in order; threads decode the next few samples ahead, fewer where images are large."""
    return in_threads(dataset.__getitem__, indices, _bytes)


def _bytes(sample: Sample) -> int:
    return sample.image.nbytes + (0 if sample.label is None else sample.label.nbytes)
