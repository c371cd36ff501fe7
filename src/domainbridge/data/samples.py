"""Lists of files as samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from domainbridge.data.decode import read_image
from domainbridge.data.label_files import LabelDecoder
from domainbridge.data.transforms import ResizeRule, resize_image, resize_label
from domainbridge.errors import DataError
from domainbridge.types import Sample

__all__ = ["Concatenated", "FileSamples", "Samples"]


class Samples(Protocol):
    """Anything that has a length and can load its i-th sample."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def load(self, index: int) -> Sample:
        """Decode sample ``index``, 0 <= index < len."""
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
    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None = None
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
            assert self.decoder is not None
            label = self.decoder.read(self.labels[index])
            if label.shape != image.shape[:2]:
                raise DataError(
                    f"{self.labels[index]}: {label.shape[1]}x{label.shape[0]} pixels, but its image {path} has "
                    f"{image.shape[1]}x{image.shape[0]}; they must be equal"
                )
        if self.resize is not None:
            size = self.resize.size_for(image.shape[0], image.shape[1])
            image = resize_image(image, size)
            if label is not None and self.resize_labels:
                label = resize_label(label, size)
        if label is not None and self.label_scale != 1:
            height, width = label.shape
            label = resize_label(label, (round(height * self.label_scale), round(width * self.label_scale)))
        return Sample(image, label, str(path))


@dataclass(frozen=True)
class Concatenated:
    """Several domains one after the other."""

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def load(self, index: int) -> Sample:
        """Load from the domain that ``index`` falls into."""
        for part in self.parts:
            if index < len(part):
                return part.load(index)
            index -= len(part)
        raise AssertionError("index beyond the last domain")
