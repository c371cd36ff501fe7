"""What is noticed only when several domains are looked at together."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.storage.tar import read_bytes, size_and_mtime

__all__ = ["cross_domain_checks", "every"]

_LOOKED_AT_MOST = 20_000
"""Files of a domain that are looked at from outside before a run, evenly spread: seconds, however many there are."""


def cross_domain_checks(
    recipe: Recipe, data: DataSets, counts: Mapping[str, NDArray[np.int64] | None], *, all_files: bool
) -> list[str]:
    """Targets that are sources, scored images that are training images, classes that one side lacks.

    Args:
        recipe: with label space and evaluation.
        data: its files.
        counts: by domain, pixels per train id.
        all_files: look at every file, not only at evenly spread ones.
    """
    identical = _identical_images(data, all_files=all_files)
    return [*_targets_that_are_sources(data), *identical, *_one_sided_classes(recipe, data, counts)]


def every(domain: FileDataset, *, all_files: bool) -> int:
    """Every how many-th file of a domain is looked at from outside."""
    return 1 if all_files else max(-(-len(domain) // _LOOKED_AT_MOST), 1)


def _targets_that_are_sources(data: DataSets) -> list[str]:
    return [
        f"{target.name}: the same images as {source.name}; there is nothing to adapt to"
        for target in data.targets
        for source in data.sources
        if len(target) and target.images == source.images
    ]


def _identical_images(data: DataSets, *, all_files: bool) -> list[str]:
    """Scored images that are, byte for byte, training images too, and test images that are validation images."""

    @cache
    def digest(path: Path) -> bytes:
        return blake2b(read_bytes(path), digest_size=16).digest()

    tests, validation = tuple(data.test.values()), tuple(data.validation.values())
    return [
        *_twins(data.scored, data.trained, "training", digest, all_files=all_files),
        *_twins(tests, validation, "validation", digest, all_files=all_files),
    ]


def _twins(
    scored: Sequence[FileDataset],
    others: Sequence[FileDataset],
    role: str,
    digest: Callable[[Path], bytes],
    *,
    all_files: bool,
) -> list[str]:
    """A line for each scored set with images of other sets; only files of equal size are read, once."""
    sized: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    for domain in scored:
        for path in domain.images:
            sized[size_and_mtime(str(path))[0]].append((path, domain.name))
    twins: dict[str, dict[Path, tuple[Path, str]]] = {domain.name: {} for domain in scored}
    for domain in others if sized else ():
        for index in range(0, len(domain), every(domain, all_files=all_files)):
            path = domain.images[index]
            for other, name in sized.get(size_and_mtime(str(path))[0], ()):
                if digest(path) == digest(other):
                    twins[name].setdefault(other, (path, domain.name))
    warnings = []
    for name, pairs in twins.items():
        if pairs:
            other, (path, trained) = next(iter(pairs.items()))
            warnings.append(f"{name}: {len(pairs)} images are {role} images of {trained} too, e.g. {other} is {path}")
    return warnings


def _one_sided_classes(recipe: Recipe, data: DataSets, counts: Mapping[str, NDArray[np.int64] | None]) -> list[str]:
    """Classes that no source shows, and those that only a validation set shows."""
    space, scored = training_space(recipe), scoring_rule(recipe)
    known = [count for source in data.sources if (count := counts[source.name]) is not None]
    if not known:
        return []
    present = {index for index in np.flatnonzero(np.sum(known, axis=0)).tolist() if index < len(space)}
    warnings = []
    absent = [name for index, name in enumerate(space.classes) if index not in present]
    if absent:
        warnings.append(f"classes without any source pixel: {', '.join(absent)}; they cannot be learned")
    learnable = {int(scored.table[index]) for index in present}
    for samples in data.scored:
        pixels = counts[samples.name]
        ids = np.flatnonzero(pixels).tolist() if pixels is not None else []
        names = [scored.space.classes[index] for index in ids if index not in learnable]
        unexcused = [name for name in names if name not in scored.exclude_classes]
        if unexcused:
            warnings.append(
                f"{samples.name}: classes that only the validation shows: {', '.join(unexcused)}; their IoU will be 0, "
                "leave them out of the mean with evaluation.exclude_classes"
            )
    return warnings
