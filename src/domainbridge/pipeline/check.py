"""Looking at every file before the first step, so that no run dies at night of a broken PNG."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from domainbridge.config.schema import Recipe
from domainbridge.data.decode import read_image
from domainbridge.data.samples import FileSamples
from domainbridge.errors import DataError, problem_list
from domainbridge.pipeline.datasets import DataSets, files_fingerprint
from domainbridge.pipeline.plan import digest

__all__ = ["check_data", "check_fingerprint"]

_AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. More are checked by even sampling."""


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets"})
    return digest([settings, [files_fingerprint(domain) for domain in data.domains]])


def check_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None]) -> None:
    """Decode the images and labels of every domain.

    Args:
        recipe: for its name.
        data: its files.
        announce: called with a line about what is done.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found.
    """
    announce(f"checking {sum(len(domain) for domain in data.domains)} images and their labels")
    problems = []
    for domain in data.domains:
        step = -(-len(domain) // _AT_MOST)
        if step > 1:
            announce(f"{domain.name}: {len(domain)} images, every {step}th is checked")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(partial(_problem, domain), range(0, len(domain), step))
            problems += [problem for problem in found if problem]
    if problems:
        raise DataError(problem_list(f"recipe {recipe.name}: {len(problems)} file(s) cannot be used", problems))


def _problem(domain: FileSamples, index: int) -> str | None:
    try:
        if domain.labels is None:
            read_image(domain.images[index])
        else:
            domain.load(index)
    except DataError as error:
        return str(error)
    return None
