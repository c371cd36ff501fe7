"""What is looked at in each sample of a domain, and what the samples of a domain add up to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.dataset import FileDataset, check_same_size
from domainbridge.data.decode import count_colors, image_size
from domainbridge.data.headers import page_count, read_header
from domainbridge.data.index_image import label_size
from domainbridge.data.labels import IdLabels
from domainbridge.data.pairing import mask_ending
from domainbridge.data.statistics import class_counts
from domainbridge.errors import DataError
from domainbridge.tools.label_facts import LabelFacts, LabelFile, binary_mask_advice, look_at_label, unnamed_colors
from domainbridge.types import IGNORE

__all__ = ["Findings", "look_at_headers", "look_at_sample"]

_MOSTLY_IGNORED = 0.5
_SOME_IGNORED = 0.05
_FEW_COLORS = 8
_SAMPLED_PIXELS = 4096
_PAGED = (".tif", ".tiff", ".gif", ".webp", ".png")


@dataclass(frozen=True)
class Look:
    """One sample: what is wrong with it, or its size at the network, its class counts and what its files say.

    Attributes:
        problem: why the sample cannot be used.
        small: smaller than the crop.
        counts: pixels per train id, int64 (255,).
        pixels: of the label.
        label: facts about the label file.
        mask_like: the image has few colors.
        turned: EXIF data turn the image without a change of its size.
        paged: the first of its files with several pages.
    """

    problem: DataError | None
    small: bool = False
    counts: NDArray[np.int64] | None = None
    pixels: int = 0
    label: LabelFile | None = None
    mask_like: bool = False
    turned: bool = False
    paged: Path | None = None


def look_at_sample(domain: FileDataset, crop: tuple[int, int] | None, index: int) -> Look:
    """Decode a sample's files."""
    path = domain.images[index]
    try:
        image = domain.read_image(index)
        size = image.shape[0], image.shape[1]
        small = _smaller(domain.resize.size_for(*size) if domain.resize is not None else size, crop)
        paged = path if path.suffix.lower() in _PAGED and page_count(path) > 1 else None
        if domain.labels is None:
            return Look(None, small, mask_like=count_colors(image, _SAMPLED_PIXELS) <= _FEW_COLORS, paged=paged)
        label, facts = _look_at_label(domain, index, size)
    except DataError as error:
        return Look(error)
    label_path = domain.labels[index]
    if paged is None and label_path.suffix.lower() in (".tif", ".tiff", ".gif") and page_count(label_path) > 1:
        paged = label_path
    turned = path.suffix.lower() not in (".bmp", ".ppm") and domain.image_rule.exif == "upright" and _is_turned(path)
    return Look(None, small, class_counts(label), label.size, facts, turned=turned, paged=paged)


def _look_at_label(
    domain: FileDataset, index: int, size: tuple[int, int]
) -> tuple[NDArray[np.uint8], LabelFile | None]:
    """Train ids at the stored size, and facts about the values."""
    assert domain.labels is not None
    path, decoder = domain.labels[index], domain.decoder
    facts = None
    if isinstance(decoder, IdLabels | ColorLabels):
        values: NDArray[Any] = decoder.values(path)
        _check_size(domain, index, size, (values.shape[0], values.shape[1]))
        facts = look_at_label(decoder, path, values)
        return decoder.train_ids(path, values), facts
    if isinstance(decoder, AnnotationLabels):
        label, unnamed = decoder.look(path)
        facts = LabelFile(dict(unnamed))
    else:
        assert decoder is not None
        label = decoder.read(path)
    _check_size(domain, index, size, (label.shape[0], label.shape[1]))
    return label, facts


def _check_size(domain: FileDataset, index: int, image: tuple[int, int], label: tuple[int, int]) -> None:
    assert domain.labels is not None
    if not domain.label_resize:
        check_same_size(domain.images[index], image, domain.labels[index], label)


def look_at_headers(domain: FileDataset, index: int) -> DataError | None:
    """What the headers of a sample's files say is wrong; nothing is decoded."""
    try:
        size = image_size(domain.images[index], domain.image_rule)
        if domain.labels is not None and isinstance(domain.decoder, IdLabels | ColorLabels):
            _check_size(domain, index, size, label_size(domain.labels[index]))
    except DataError as error:
        return error
    return None


def _is_turned(path: Path) -> bool:
    """Whether EXIF data turn an image so that a label of the unturned image has the same size."""
    header = read_header(path)
    return header.orientation in (2, 3, 4) or (header.orientation > 1 and header.width == header.height)


def _smaller(size: Sequence[int], crop: tuple[int, int] | None) -> bool:
    return crop is not None and (size[0] < crop[0] or size[1] < crop[1])


@dataclass
class Counted:
    """How many samples have a property, and the first of them."""

    number: int = 0
    example: Path | None = None

    def add(self, path: Path) -> None:
        """One more."""
        self.number, self.example = self.number + 1, self.example or path


@dataclass
class Findings:
    """What the samples of a domain add up to."""

    domain: FileDataset
    crop: tuple[int, int] | None
    errors: list[DataError] = field(default_factory=list)
    looked: int = 0
    small: Counted = field(default_factory=Counted)
    empty: Counted = field(default_factory=Counted)
    mask_like: Counted = field(default_factory=Counted)
    turned: Counted = field(default_factory=Counted)
    paged: Counted = field(default_factory=Counted)
    labeled: int = 0
    pixels: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(IGNORE, np.int64))
    facts: LabelFacts = field(default_factory=LabelFacts)
    unnamed: Counter[int] = field(default_factory=Counter)

    @property
    def ignored(self) -> int:
        """Labeled files' pixels without a class."""
        return self.pixels - int(self.counts.sum())

    def add(self, index: int, look: Look) -> None:
        """Take in one sample."""
        image = self.domain.images[index]
        label = self.domain.labels[index] if self.domain.labels is not None else None
        self.looked += 1
        if look.problem is not None:
            self.errors.append(look.problem)
        for counted, happened in (
            (self.small, look.small),
            (self.turned, look.turned),
            (self.mask_like, look.mask_like or (self.domain.labels is None and mask_ending(image.stem) is not None)),
            (self.empty, look.counts is not None and not look.counts.any()),
        ):
            if happened:
                counted.add(image)
        if look.paged is not None:
            self.paged.add(look.paged)
        if look.counts is not None:
            self.labeled += 1
            self.pixels += look.pixels
            self.counts += look.counts
        if look.label is not None and isinstance(self.domain.decoder, IdLabels | ColorLabels):
            self.facts.decoder = self.domain.decoder
            self.facts.add(label or image, look.label)
        elif look.label is not None:
            self.unnamed.update(look.label.value_counts)

    def refusals(self) -> list[str]:
        """Why the labels of the whole domain cannot be used."""
        classes = int(np.count_nonzero(self.counts))
        validation = self.crop is None
        if not self.labeled or classes > 1 or (validation and classes and self.ignored <= _SOME_IGNORED * self.pixels):
            return []
        if not classes:
            value_counts = f"no pixel of any label has a class; values found: {self.facts.values()}"
        else:
            value_counts = f"only one class has pixels; values found: {self.facts.values()}"
        advice = binary_mask_advice(self.facts, self.domain.classes)
        if isinstance(self.domain.decoder, AnnotationLabels):
            advice = f"Pixels without annotation may be of a class: unannotated: {self.domain.classes[0]}"
        return [f"{self.domain.name}: {value_counts}; is label_map or label_space right? {advice}"]

    def remarks(self) -> tuple[list[str], list[str]]:
        """(warnings, notes), each a sentence."""
        warnings, notes = self.facts.remarks()
        if self.unnamed:
            share = self.unnamed.total() / self.pixels
            (warnings if share >= _SOME_IGNORED else notes).append(unnamed_colors(self.unnamed, share))
        if 0 < self.empty.number < self.labeled:
            warnings.append(
                f"{self.empty.number} labels have no class at all (255 everywhere), e.g. that of {self.empty.example}"
            )
        if self.pixels and self.ignored > _MOSTLY_IGNORED * self.pixels:
            warnings.append(f"{self.ignored / self.pixels:.0%} of the labeled pixels have no class (255)")
        if self.small.number and self.crop is not None:
            warnings.append(
                f"{self.small.number} of {self.looked} images are smaller than the crop of "
                f"{self.crop[1]}x{self.crop[0]} and will be padded, e.g. {self.small.example}; use resize, or a "
                "smaller crop"
            )
        if self.mask_like.number:
            warnings.append(
                f"{self.mask_like.number} of {self.looked} images look like labels (few colors, or a label's name), "
                f"e.g. {self.mask_like.example}; leave labels out with image_pattern or exclude_files"
            )
        if self.turned.number:
            warnings.append(
                f"{self.turned.number} images are turned as their EXIF data say, e.g. {self.turned.example}; if their "
                "labels are not, set exif: raw"
            )
        if self.paged.number:
            notes.append(
                f"{self.paged.number} samples have files of several pages or frames, e.g. {self.paged.example}; the "
                "first one is read"
            )
        return warnings, notes
