"""The linter of a recipe's data: every file is looked at before the first step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset, check_same_size
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.labels import PolygonLabels
from domainbridge.data.statistics import class_counts
from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError, problem_list
from domainbridge.files import digest
from domainbridge.tools.cross_domain import cross_domain_checks, every
from domainbridge.types import IGNORE

__all__ = ["AT_MOST", "DomainSurvey", "Survey", "check_data", "check_fingerprint", "survey_data"]

AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. Of more, evenly spread ones are
decoded, and the headers of many more are read. `data check` looks at all."""
_MOSTLY_IGNORED = 0.5


@dataclass(frozen=True)
class DomainSurvey:
    """What the files of a domain turned out to be.

    Attributes:
        name: of the domain, as in messages.
        images: how many were looked at.
        errors: what training would fail on, each with its file.
        warnings: what would hurt.
        counts: pixels per train id, int64 (255,); None for an unlabeled domain.
        ignored: labeled files' pixels without a class.
    """

    name: str
    images: int
    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    counts: NDArray[np.int64] | None
    ignored: int


@dataclass(frozen=True)
class Survey:
    """What all domains turned out to be; ``warnings`` here concern several domains at once."""

    domains: tuple[DomainSurvey, ...]
    warnings: tuple[str, ...]

    @property
    def all_errors(self) -> list[str]:
        """Of every domain."""
        return [error for domain in self.domains for error in domain.errors]

    @property
    def all_warnings(self) -> list[str]:
        """Of every domain, and those between domains."""
        return [*(f"{d.name}: {text}" for d in self.domains for text in d.warnings), *self.warnings]


@dataclass(frozen=True)
class _Look:
    """One sample: what is wrong with it, or its size at the network and its class counts."""

    problem: str | None
    small: bool = False
    counts: NDArray[np.int64] | None = None
    pixels: int = 0


@dataclass
class _Findings:
    """What the samples of a domain add up to; of what would hurt, how many there are, and one of them."""

    errors: list[str] = field(default_factory=list)
    small: int = 0
    small_one: Path | None = None
    empty: int = 0
    empty_one: Path | None = None
    labeled: int = 0
    pixels: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(IGNORE, np.int64))

    @property
    def ignored(self) -> int:
        """Labeled files' pixels without a class."""
        return self.pixels - int(self.counts.sum())

    def add(self, image: Path, look: _Look) -> None:
        """Take in one sample."""
        if look.problem is not None:
            self.errors.append(look.problem)
        if look.small:
            self.small, self.small_one = self.small + 1, self.small_one or image
        if look.counts is not None:
            self.labeled += 1
            self.pixels += look.pixels
            self.counts += look.counts
            if not look.counts.any():
                self.empty, self.empty_one = self.empty + 1, self.empty_one or image


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets", "crop"})
    return digest([settings, [files_fingerprint(domain) for domain in data.domains]])


def check_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None]) -> None:
    """Decode images and labels of every domain, at most ``AT_MOST`` of each; announce what would hurt.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found, and every labeled domain in which
            no pixel has a class.
    """
    announce(f"checking {sum(len(domain) for domain in data.domains)} images and their labels")
    survey = survey_data(recipe, data, announce, AT_MOST)
    if survey.all_errors:
        count = len(survey.all_errors)
        raise DataError(problem_list(f"recipe {recipe.name}: {count} file(s) cannot be used", survey.all_errors))
    for warning in survey.all_warnings:
        announce(f"note: {warning}")


def survey_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None], at_most: int | None = None) -> Survey:
    """Decode the images and labels of every domain and gather everything that would hurt later.

    Args:
        recipe: with label space, crop and evaluation.
        data: its files; domains may be empty.
        announce: called with a line about what is done.
        at_most: files per domain; of more, evenly spread ones are taken. None: all.
    """
    crop = (recipe.crop.height, recipe.crop.width)
    domains = (
        *(_survey_domain(domain, crop, announce, at_most) for domain in (*data.sources, *data.targets)),
        *(_survey_domain(domain, None, announce, at_most) for domain in data.validation.values()),
    )
    counts = {domain.name: domain.counts for domain in domains}
    return Survey(domains, tuple(cross_domain_checks(recipe, data, counts, all_files=at_most is None)))


def _survey_domain(
    domain: FileDataset, crop: tuple[int, int] | None, announce: Callable[[str], None], at_most: int | None
) -> DomainSurvey:
    step = 1 if at_most is None else max(-(-len(domain) // at_most), 1)
    if step > 1:
        announce(f"{domain.name}: {len(domain)} images, every {step}th is decoded; `data check` decodes all")
    indices = range(0, len(domain), step)
    findings = _Findings()
    for index, look in zip(indices, in_threads(partial(_look, domain, crop), indices), strict=True):
        findings.add(domain.images[index], look)
    others = (index for index in range(0, len(domain), every(domain, all_files=at_most is None)) if index % step)
    headers = in_threads(partial(_look_at_headers, domain), others)
    errors = [*findings.errors, *(problem for problem in headers if problem is not None)]
    counts = findings.counts if findings.labeled else None
    if findings.labeled and not findings.counts.any():
        errors.append(f"{domain.name}: no pixel of any label has a class; is label_map or label_space right?")
    warnings = [*domain.notes, *_label_warnings(findings)]
    if findings.small and crop is not None:
        warnings.append(
            f"{findings.small} of {len(indices)} images are smaller than the crop of {crop[1]}x{crop[0]} and will be "
            f"padded, e.g. {findings.small_one}; use resize, or a smaller crop"
        )
    return DomainSurvey(domain.name, len(indices), tuple(errors), tuple(warnings), counts, findings.ignored)


def _look(domain: FileDataset, crop: tuple[int, int] | None, index: int) -> _Look:
    try:
        if domain.labels is None:
            height, width = read_image(domain.images[index]).shape[:2]
            size = domain.resize.size_for(height, width) if domain.resize is not None else (height, width)
            return _Look(None, _smaller(size, crop))
        sample = domain[index]
    except DataError as error:
        return _Look(str(error))
    assert sample.label is not None
    return _Look(None, _smaller(sample.image.shape[:2], crop), class_counts(sample.label), sample.label.size)


def _look_at_headers(domain: FileDataset, index: int) -> str | None:
    """What the headers of a sample's files say is wrong; nothing is decoded."""
    try:
        size = image_size(domain.images[index])
        if domain.labels is not None and not isinstance(domain.decoder, PolygonLabels):
            check_same_size(domain.images[index], size, domain.labels[index], image_size(domain.labels[index]))
    except DataError as error:
        return str(error)
    return None


def _smaller(size: Sequence[int], crop: tuple[int, int] | None) -> bool:
    return crop is not None and (size[0] < crop[0] or size[1] < crop[1])


def _label_warnings(findings: _Findings) -> list[str]:
    warnings = []
    if 0 < findings.empty < findings.labeled:
        warnings.append(
            f"{findings.empty} labels have no class at all (255 everywhere), e.g. that of {findings.empty_one}"
        )
    if findings.pixels and findings.ignored > _MOSTLY_IGNORED * findings.pixels:
        warnings.append(f"{findings.ignored / findings.pixels:.0%} of the labeled pixels have no class (255)")
    return warnings
