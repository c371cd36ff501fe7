"""The linter of a recipe's data: every file is looked at before the first step."""

import time
from collections.abc import Callable

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import DataError, problem_list
from domainbridge.files import digest
from domainbridge.tools.kept_surveys import data_settings, find_survey, keep_survey, survey_key
from domainbridge.tools.survey import Survey, survey_data

__all__ = ["AT_MOST", "check_data", "check_fingerprint", "kept_or_new_survey", "source_pixels"]

AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. Of more, evenly spread ones are
decoded, and the headers of many more are read. `data check` looks at all."""


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    return digest([data_settings(recipe), [files_fingerprint(domain) for domain in data.domains]])


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
    key = survey_key(recipe, data)
    if key is not None and not again:
        for reach in dict.fromkeys((None, at_most)):  # what all files say holds for some of them too
            kept = find_survey(key, reach)
            if kept is not None:
                when = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept[1]))
                announce(f"{total} images and their labels: unchanged since the check of {when}")
                return kept[0]
    announce(f"checking {total} images and their labels")
    survey = survey_data(recipe, data, announce, at_most)
    # Errors are not kept: what is missing may be a package. Nor is what was looked at while a file changed.
    if key is not None and not survey.all_errors and survey_key(recipe, data) == key:
        keep_survey(key, at_most, survey)
    return survey
