"""Lists of files as samples: a folder of images, with or without its mirror image of labels."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from domainbridge.data.decode import LabelDecoder, read_image
from domainbridge.data.transforms import ResizeRule, resize_image, resize_label
from domainbridge.errors import DataError
from domainbridge.types import Sample

__all__ = [
    "IMAGE_SUFFIXES",
    "Concatenated",
    "FileSamples",
    "Samples",
    "index_images",
    "pair_folder",
    "stems_of",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})


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
        resize_labels: False keeps labels at their stored size, as scoring wants them.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None = None
    decoder: LabelDecoder | None = None
    resize: ResizeRule | None = None
    resize_labels: bool = True

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


def index_images(folder: Path, where: str) -> dict[str, Path]:
    """Stem relative to ``folder`` (with forward slashes) -> image file, for every image below it, sorted.

    Raises:
        DataError: no such folder, or no image in it, or two images with one stem.
    """
    if not folder.is_dir():
        raise DataError(f"{where}: no such folder: {folder}")
    found: dict[str, Path] = {}
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                stem = path.relative_to(folder).with_suffix("").as_posix()
                if stem in found:
                    raise DataError(f"{where}: {found[stem]} and {path} have the same stem; keep one")
                found[stem] = path
    if not found:
        raise DataError(f"{where}: no image (of {', '.join(sorted(IMAGE_SUFFIXES))}) below {folder}")
    return found


def stems_of(split: Path, where: str) -> list[str]:
    """Stems listed in a split file, one per line; blank lines are skipped.

    Raises:
        DataError: unreadable, empty or a stem twice.
    """
    try:
        stems = [line.strip() for line in split.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: the split file {split} cannot be read: {error}") from error
    if not stems:
        raise DataError(f"{where}: the split file {split} lists nothing")
    seen: set[str] = set()
    twice = sorted({stem for stem in stems if stem in seen or seen.add(stem)})  # type: ignore[func-returns-value]
    if twice:
        raise DataError(f"{where}: the split file {split} lists {', '.join(twice[:5])} more than once")
    return stems


def pair_folder(
    images: Path, labels: Path | None, split: Path | None, where: str
) -> tuple[tuple[Path, ...], tuple[Path, ...] | None]:
    """Images of a folder (all, or those of a split file) and their labels at the same relative stem.

    Raises:
        DataError: something is missing; the first missing files are named and all are counted.
    """
    by_stem = index_images(images, f"{where}.images")
    stems: Sequence[str] = stems_of(split, f"{where}.split") if split else list(by_stem)
    _all_there(stems, by_stem, f"{where}: {split} lists images", images)
    chosen = tuple(by_stem[stem] for stem in stems)
    if labels is None:
        return chosen, None
    label_by_stem = index_images(labels, f"{where}.labels")
    _all_there(stems, label_by_stem, f"{where}: images without label", labels)
    return chosen, tuple(label_by_stem[stem] for stem in stems)


def _all_there(stems: Sequence[str], found: dict[str, Path], what: str, folder: Path) -> None:
    missing = [stem for stem in stems if stem not in found]
    if missing:
        close = difflib.get_close_matches(missing[0], list(found)[:2000], n=1, cutoff=0.8)
        hint = f" (a close name there: {close[0]})" if close else ""
        listed = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"{what}: {len(missing)} of {len(stems)} have no file below {folder}: {listed}{hint}")
