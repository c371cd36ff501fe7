"""Looking at files before the first step, so that no run dies at night of a broken PNG."""

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
from domainbridge.types import IGNORE

__all__ = ["AT_MOST", "check_data", "check_fingerprint"]

AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. More are checked by even sampling."""


def check_fingerprint(recipe: Recipe, data: DataSets) -> str:
    """Changes when the files or the way of reading them change: what passed once need not be checked again."""
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets"})
    return digest([settings, [files_fingerprint(domain) for domain in data.domains]])


def check_data(recipe: Recipe, data: DataSets, announce: Callable[[str], None], at_most: int | None = AT_MOST) -> None:
    """Decode the images and labels of every domain.

    Args:
        recipe: for its name.
        data: its files.
        announce: called with a line about what is done.
        at_most: files per domain; of more, evenly spread ones are taken. None: all.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found, and every labelled domain in which
            no pixel has a class.
    """
    announce(f"checking {sum(len(domain) for domain in data.domains)} images and their labels")
    problems = []
    for domain in data.domains:
        step = 1 if at_most is None else -(-len(domain) // at_most)
        if step > 1:
            announce(f"{domain.name}: {len(domain)} images, every {step}th is checked; `data check` looks at all")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = list(pool.map(partial(_look, domain), range(0, len(domain), step)))
        problems += [problem for problem, _ in found if problem]
        if domain.labels is not None and not any(labelled for _, labelled in found):
            problems.append(f"{domain.name}: no pixel of any label has a class; is label_map or label_space right?")
    if problems:
        raise DataError(problem_list(f"recipe {recipe.name}: {len(problems)} file(s) cannot be used", problems))


def _look(domain: FileSamples, index: int) -> tuple[str | None, bool]:
    """(what is wrong with a sample, whether its label has any pixel with a class)."""
    try:
        if domain.labels is None:
            read_image(domain.images[index])
            return None, False
        label = domain.load(index).label
        return None, label is not None and bool((label != IGNORE).any())
    except DataError as error:
        return str(error), True
