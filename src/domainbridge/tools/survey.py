"""What the files of a recipe turn out to be when they are decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.threads import in_threads
from domainbridge.tools.cross_domain import cross_domain_checks, every
from domainbridge.tools.findings import grouped
from domainbridge.tools.samples import Findings, look_at_headers, look_at_sample

__all__ = ["DomainSurvey", "Survey", "survey_data"]


@dataclass(frozen=True)
class DomainSurvey:
    """What the files of a domain turned out to be.

    Attributes:
        name: of the domain, as in messages.
        images: how many were looked at.
        errors: what training would fail on, a line per cause.
        unusable: number of files with an error.
        warnings: what would hurt.
        notes: what to know.
        counts: pixels per train id, int64 (255,); None for an unlabeled domain.
        ignored: labeled files' pixels without a class.
    """

    name: str
    images: int
    errors: tuple[str, ...]
    unusable: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
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

    @property
    def all_notes(self) -> list[str]:
        """Of every domain."""
        return [f"{domain.name}: {text}" for domain in self.domains for text in domain.notes]


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
        *(_survey_domain(domain, crop, announce, at_most) for domain in data.trained),
        *(_survey_domain(domain, None, announce, at_most) for domain in data.scored),
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
    findings = Findings(domain, crop)
    for index, look in zip(indices, in_threads(partial(look_at_sample, domain, crop), indices), strict=True):
        findings.add(index, look)
    others = (index for index in range(0, len(domain), every(domain, all_files=at_most is None)) if index % step)
    headers = in_threads(partial(look_at_headers, domain), others)
    errors = [*findings.errors, *(problem for problem in headers if problem is not None)]
    warnings, notes = findings.remarks()
    return DomainSurvey(
        domain.name,
        len(indices),
        (*grouped(errors), *findings.refusals()),
        len(errors),
        tuple(warnings),
        (*domain.notes, *notes),
        findings.counts if findings.labeled else None,
        findings.ignored,
    )
