"""Looking at files before the first step, so that no run dies at night of a broken PNG."""

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.config.schema import Recipe
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.label_files import PolygonLabels
from domainbridge.data.samples import FileSamples, check_same_size
from domainbridge.data.statistics import class_counts
from domainbridge.data.stored import read_bytes, stamp
from domainbridge.errors import DataError, problem_list
from domainbridge.pipeline.datasets import DataSets
from domainbridge.pipeline.labels import scoring_rule, training_space
from domainbridge.pipeline.plan import digest

__all__ = ["AT_MOST", "DomainSurvey", "Survey", "check_data", "check_fingerprint", "survey_data"]

AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. Of more, evenly spread ones are
decoded, and the headers of ..."""
_HEADERS_AT_MOST = 20_000
"""... so many are read, evenly spread too: seconds, however many images there are. `data check` looks at all."""
_MOSTLY_IGNORED = 0.5


@dataclass(frozen=True)
class DomainSurvey:
    """What the files of a domain turned out to be.

    Attributes:
        name: of the domain, as in messages.
        images: how many were looked at.
        errors: what training would fail on, each with its file.
        warnings: what would hurt.
        counts: pixels per train id, int64 (255,); None for an unlabelled domain.
        ignored: labelled files' pixels without a class.
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


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets", "crop"})
    return digest([settings, [files_fingerprint(domain) for domain in data.domains]])


def check_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None]) -> None:
    """Decode images and labels of every domain, at most ``AT_MOST`` of each; announce what would hurt.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found, and every labelled domain in which
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
    warnings = [*_identical_images(data), *_one_sided_classes(recipe, data, domains)]
    return Survey(domains, tuple(warnings))


def _survey_domain(
    domain: FileSamples, crop: tuple[int, int] | None, announce: Callable[[str], None], at_most: int | None
) -> DomainSurvey:
    step = 1 if at_most is None else max(-(-len(domain) // at_most), 1)
    if step > 1:
        announce(f"{domain.name}: {len(domain)} images, every {step}th is decoded; `data check` decodes all")
    indices = range(0, len(domain), step)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(partial(_look, domain, crop), indices))
        every = 1 if at_most is None else -(-len(domain) // _HEADERS_AT_MOST)
        others = (index for index in range(0, len(domain), every) if index % step)
        headers = list(pool.map(partial(_look_at_headers, domain), others))
    errors = [problem for problem in (*(look.problem for look in looks), *headers) if problem is not None]
    counted = [look.counts for look in looks if look.counts is not None]
    counts = np.stack(counted).sum(0) if counted else None
    pixels = sum(look.pixels for look in looks)
    ignored = pixels - int(counts.sum()) if counts is not None else 0
    if counts is not None and not counts.any():
        errors.append(f"{domain.name}: no pixel of any label has a class; is label_map or label_space right?")
    warnings = [*domain.notes, *_label_warnings(domain, looks, indices, ignored, pixels)]
    small = [domain.images[index] for index, look in zip(indices, looks, strict=True) if look.small]
    if small and crop is not None:
        warnings.append(
            f"{len(small)} of {len(indices)} images are smaller than the crop of {crop[1]}x{crop[0]} and will be "
            f"padded, e.g. {small[0]}; use resize, or a smaller crop"
        )
    return DomainSurvey(domain.name, len(indices), tuple(errors), tuple(warnings), counts, ignored)


def _look(domain: FileSamples, crop: tuple[int, int] | None, index: int) -> _Look:
    try:
        if domain.labels is None:
            height, width = read_image(domain.images[index]).shape[:2]
            size = domain.resize.size_for(height, width) if domain.resize is not None else (height, width)
            return _Look(None, _smaller(size, crop))
        sample = domain.load(index)
    except DataError as error:
        return _Look(str(error))
    assert sample.label is not None
    return _Look(None, _smaller(sample.image.shape[:2], crop), class_counts(sample.label), sample.label.size)


def _look_at_headers(domain: FileSamples, index: int) -> str | None:
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


def _label_warnings(domain: FileSamples, looks: list[_Look], indices: range, ignored: int, pixels: int) -> list[str]:
    warnings = []
    empty = [
        domain.images[index]
        for index, look in zip(indices, looks, strict=True)
        if look.counts is not None and not look.counts.any()
    ]
    if empty and len(empty) < len(indices):
        warnings.append(f"{len(empty)} labels have no class at all (255 everywhere), e.g. that of {empty[0]}")
    if pixels and ignored > _MOSTLY_IGNORED * pixels:
        warnings.append(f"{ignored / pixels:.0%} of the labelled pixels have no class (255)")
    return warnings


def _identical_images(data: DataSets) -> list[str]:
    """Validation images that are, byte for byte, training images too; only files of equal size are read, once."""
    sized: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    for domain in (*data.sources, *data.targets):
        for path in domain.images:
            sized[stamp(str(path))[0]].append((path, domain.name))

    @cache
    def digest(path: Path) -> bytes:
        return blake2b(read_bytes(path), digest_size=16).digest()

    warnings = []
    for domain in data.validation.values():
        pairs = ((path, *other) for path in domain.images for other in sized.get(stamp(str(path))[0], ()))
        twins = {path: (other, name) for path, other, name in pairs if digest(path) == digest(other)}
        if twins:
            path, (other, name) = next(iter(twins.items()))
            warnings.append(
                f"{domain.name}: {len(twins)} images are training images of {name} too, e.g. {path} is {other}"
            )
    return warnings


def _one_sided_classes(recipe: Recipe, data: DataSets, domains: tuple[DomainSurvey, ...]) -> list[str]:
    """Classes that no source shows, and those that only a validation set shows."""
    space, scored = training_space(recipe), scoring_rule(recipe)
    by_name = {domain.name: domain for domain in domains}
    counts = [by_name[source.name].counts for source in data.sources]
    known = [count for count in counts if count is not None]
    if not known:
        return []
    present = {index for index in np.flatnonzero(np.sum(known, axis=0)).tolist() if index < len(space)}
    warnings = []
    absent = [name for index, name in enumerate(space.classes) if index not in present]
    if absent:
        warnings.append(f"classes without any source pixel: {', '.join(absent)}; they cannot be learned")
    learnable = {int(scored.table[index]) for index in present}
    for samples in data.validation.values():
        found = by_name[samples.name].counts
        ids = np.flatnonzero(found).tolist() if found is not None else []
        names = [scored.space.classes[index] for index in ids if index not in learnable]
        unexcused = [name for name in names if name not in scored.exclude]
        if unexcused:
            warnings.append(
                f"{samples.name}: classes that only the validation shows: {', '.join(unexcused)}; their IoU will be 0, "
                "leave them out of the mean with evaluation.exclude"
            )
    return warnings
