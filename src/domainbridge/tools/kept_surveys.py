"""Surveys of data that are kept in the user's cache folder while every file keeps its state.

A check of a hundred thousand files takes minutes, the states of the files a second. A survey is found again only for
the same files with the same sizes, times and inodes, the same way of reading them, and the same version of this
program; the time of the last change cannot be set back by a program, so no edited file is overlooked.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.data.digests import FileState, file_states
from domainbridge.data.user_cache import CHANGING_NS, cache_folder, read_cached, write_cached
from domainbridge.errors import DataError
from domainbridge.files import digest
from domainbridge.tools.survey import DomainSurvey, Survey

__all__ = ["data_settings", "find_survey", "keep_survey", "survey_key"]

_FORMAT = 1
"""Counted up when a survey of the same files would find something else than before."""


def data_settings(recipe: Recipe) -> dict[str, Any]:
    """The keys that decide how files are read and checked, as plain values."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets", "crop"})
    del settings["evaluation"]["label_free"]
    for domain in (*settings["sources"], *settings["targets"]):
        del domain["license"]
    return settings


def survey_key(recipe: Recipe, data: DataSets) -> str | None:
    """A text that changes with everything that a survey depends on.

    None when nothing may be kept: a file cannot be looked at, or has changed in the last seconds and may change again
    without a trace.

    Args:
        recipe: with label space, crop and evaluation.
        data: its files.
    """
    now = time.time_ns()
    parts: list[Any] = [_FORMAT, version("domainbridge"), data_settings(recipe)]
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


def find_survey(key: str, at_most: int | None) -> tuple[Survey, float] | None:
    """The kept survey and its time in seconds since 1970; None when none is kept, or it is damaged.

    Args:
        key: see :func:`survey_key`.
        at_most: files decoded per domain; None: all.
    """
    path = _path(key, at_most)
    content = read_cached(path)
    if content is None:
        return None
    domains = tuple(_domain(tree) for tree in content["domains"])
    return Survey(domains, tuple(content["warnings"])), path.stat().st_mtime


def keep_survey(key: str, at_most: int | None, survey: Survey) -> None:
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
