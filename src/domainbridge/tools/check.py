"""The linter of a recipe's data: every file is looked at before the first step.

A check of a hundred thousand files takes minutes, the states of the files a second. So what was found is kept in the
user's cache folder, and found again only for the same files with the same sizes, times and inodes, the same way of
reading them, and the same version of this program; the time of the last change cannot be set back by a program, so no
edited file is overlooked.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.digests import FileState, file_states
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.user_cache import CHANGING_NS, cache_folder, read_cached, write_cached
from domainbridge.errors import DataError, problem_list
from domainbridge.files import digest
from domainbridge.tools.survey import DomainSurvey, Survey, survey_data

__all__ = ["AT_MOST", "check_data", "check_fingerprint", "kept_or_new_survey", "source_pixels"]

AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. Of more, evenly spread ones are
decoded, and the headers of many more are read. `data check` looks at all."""
_FORMAT = 1
"""Counted up when a survey of the same files would find something else than before."""


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    return digest([_data_settings(recipe), [files_fingerprint(domain) for domain in data.domains]])


def check_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None]) -> Survey:
    """Decode images and labels of every domain, at most ``AT_MOST`` of each; announce what would hurt.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found, and every labeled domain in which
            no pixel has a class.
    """
    survey = kept_or_new_survey(recipe, data, announce, AT_MOST)
    if survey.all_errors:
        count = len(survey.all_errors)
        raise DataError(problem_list(f"recipe {recipe.name}: {count} file(s) cannot be used", survey.all_errors))
    for text in (*survey.all_warnings, *survey.all_notes):
        announce(f"note: {text}")
    return survey


def source_pixels(recipe: Recipe, survey: Survey) -> dict[str, int]:
    """Labeled pixels of all sources by class, of the files that were decoded; empty without sources."""
    classes = training_space(recipe).classes
    counts = [domain.counts for domain in survey.domains if domain.name.startswith("sources.")]
    if not counts:
        return {}
    return {name: sum(int(part[i]) for part in counts if part is not None) for i, name in enumerate(classes)}


def kept_or_new_survey(
    recipe: Recipe,
    data: DataSets,
    announce: Callable[[str], None],
    at_most: int | None = None,
    *,
    again: bool = False,
) -> Survey:
    """The survey of a recipe's files; one without errors is kept, and found again while no file changes.

    Args:
        recipe: with label space, crop and evaluation.
        data: its files; domains may be empty.
        announce: called with a line about what is done.
        at_most: files decoded per domain; of more, evenly spread ones are taken. None: all.
        again: decode the files even if a survey is kept.
    """
    total = sum(len(domain) for domain in data.domains)
    key = _survey_key(recipe, data)
    if key is not None and not again:
        for reach in dict.fromkeys((None, at_most)):  # what all files say holds for some of them too
            kept = _find_survey(key, reach)
            if kept is not None:
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept[1]))
                announce(f"{total} images and their labels: unchanged since the check of {when}")
                return kept[0]
    announce(f"checking {total} images and their labels")
    survey = survey_data(recipe, data, announce, at_most)
    # Errors are not kept: what is missing may be a package. Nor is what was looked at while a file changed.
    if key is not None and not survey.all_errors and _survey_key(recipe, data) == key:
        _keep_survey(key, at_most, survey)
    return survey


def _data_settings(recipe: Recipe) -> dict[str, Any]:
    """The keys that decide how files are read and checked, as plain values."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets", "crop"})
    del settings["evaluation"]["label_free"]
    for domain in (*settings["sources"], *settings["targets"]):
        del domain["license"]
    return settings


def _survey_key(recipe: Recipe, data: DataSets) -> str | None:
    """A text that changes with everything that a survey depends on.

    None when nothing may be kept: a file cannot be looked at, or has changed in the last seconds and may change again
    without a trace.
    """
    now = time.time_ns()
    parts: list[Any] = [_FORMAT, version("domainbridge"), _data_settings(recipe)]
    for domain in data.domains:
        paths = [str(path.absolute()) for path in (*domain.images, *(domain.labels or ()))]
        try:
            states = file_states(domain.name, paths)
        except DataError:
            return None
        if any(now - max(state.changed, state.modified) < CHANGING_NS for state in states):
            return None
        parts += [domain.name, domain.notes, _digest(paths, states)]
    return digest(parts)


def _digest(paths: Sequence[str], states: Sequence[FileState]) -> str:
    # One text instead of a list per file: a tenth of the time for a hundred thousand files.
    return digest("\n".join(f"{path}\0{state}" for path, state in zip(paths, states, strict=True)))


def _find_survey(key: str, at_most: int | None) -> tuple[Survey, float] | None:
    """The kept survey and its time in seconds since 1970; None when none is kept, or it is damaged."""
    path = _path(key, at_most)
    content = read_cached(path)
    if content is None:
        return None
    domains = tuple(_domain(tree) for tree in content["domains"])
    return Survey(domains, tuple(content["warnings"])), path.stat().st_mtime


def _keep_survey(key: str, at_most: int | None, survey: Survey) -> None:
    """Keep a survey of at most so many files per domain; a cache that cannot be written is none."""
    tree = asdict(survey)
    for domain in tree["domains"]:
        domain["counts"] = None if domain["counts"] is None else domain["counts"].tolist()
    write_cached(_path(key, at_most), tree)


def _path(key: str, at_most: int | None) -> Path:
    return cache_folder() / "surveys" / f"{key}-{at_most or 'all'}.json"


def _domain(tree: dict[str, Any]) -> DomainSurvey:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in tree.items()}
    if values["counts"] is not None:
        values["counts"] = np.asarray(values["counts"], np.int64)
    return DomainSurvey(**values)
