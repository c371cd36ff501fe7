"""Looking at every file before the first step, so that no run dies at night of a broken PNG."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from domainbridge.config.schema import Recipe
from domainbridge.data.decode import read_image
from domainbridge.data.samples import FileSamples
from domainbridge.errors import DataError, problem_list
from domainbridge.files import write_text
from domainbridge.pipeline.datasets import DataSets, files_fingerprint
from domainbridge.pipeline.plan import digest, read_json

__all__ = ["check_data"]

_AT_MOST = 3000
"""Files decoded per domain: a few seconds here, a minute for full-size PNGs. More are checked by even sampling."""


def check_data(recipe: Recipe, data: DataSets, memory: Path | None, announce: Callable[[str], None]) -> None:
    """Decode the images and labels of every domain, unless the same files passed before.

    Args:
        recipe: for the label settings.
        data: its files.
        memory: JSON file that remembers what passed, written only if its folder exists; None: check in any case.
        announce: called with a line about what is done.

    Raises:
        DataError: lists every unreadable, mismatched or out-of-space file found.
    """
    domains = [*data.sources, *data.targets, *data.validation.values()]
    settings = recipe.model_dump(mode="json", include={"label_space", "evaluation", "sources", "targets"})
    fingerprint = digest([settings, [files_fingerprint(domain) for domain in domains]])
    if memory is not None and (read_json(memory) or {}).get("passed") == fingerprint:
        return
    announce(f"checking {sum(len(domain) for domain in domains)} images and their labels")
    problems = []
    for domain in domains:
        step = -(-len(domain) // _AT_MOST)
        if step > 1:
            announce(f"{domain.name}: {len(domain)} images, every {step}th is checked")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(lambda index, domain=domain: _problem(domain, index), range(0, len(domain), step))
            problems += [problem for problem in found if problem]
    if problems:
        raise DataError(problem_list(f"recipe {recipe.name}: {len(problems)} file(s) cannot be used", problems))
    if memory is not None and memory.parent.is_dir():
        write_text(memory, json.dumps({"passed": fingerprint}) + "\n")


def _problem(domain: FileSamples, index: int) -> str | None:
    try:
        if domain.labels is None:
            read_image(domain.images[index])
        else:
            domain.load(index)
    except DataError as error:
        return str(error)
    return None
