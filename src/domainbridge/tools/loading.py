"""What one core loads a second from a recipe's files, and how many loader processes keep a device busy."""

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import cv2

from domainbridge.build.batches import paired_crops, training_data
from domainbridge.build.datasets import DataSets
from domainbridge.build.recipe import stages_of, training_config
from domainbridge.config.schema import Recipe
from domainbridge.data.batches import PairedCrops, TargetCrops
from domainbridge.data.dataset import ConcatDataset, Dataset, FileDataset
from domainbridge.data.storage.cache import CacheRule, build_cache
from domainbridge.data.threads import usable_cores
from domainbridge.methods.base import TrainingStage
from domainbridge.types import Rows

__all__ = ["Loading", "copies_needed", "loading_rate", "loading_text", "needed_workers", "seconds_to_load"]

_SAMPLES = 4
"""Images of each domain that are looked at."""
_ROUNDS = 9
_PATIENCE = 1.0
"""Seconds after which a measurement ends, with at least three crops."""


@dataclass(frozen=True)
class Loading:
    """Seconds that one core takes for a pair of crops, source with label and target.

    Attributes:
        files: from the recipe's own files.
        copies: from reduced copies of them, lossless unless the recipe's cache has another format.
    """

    files: float
    copies: float


def loading_rate(recipe: Recipe, data: DataSets) -> Loading:
    """Load a few crops on one core, in about two seconds; copies of a few images go to a temporary folder.

    Raises:
        DataError: a file cannot be read.
    """
    few = tuple(_first(domain) for domain in data.sources), tuple(_first(domain) for domain in data.targets)
    stage = next(stage for stage in stages_of(recipe) if isinstance(stage, TrainingStage))

    def measured(source: Dataset, target: Dataset) -> float:
        training = training_data(recipe, replace(data, sources=few[0], targets=few[1]), source, target)
        return seconds_to_load(paired_crops(recipe, stage, 1, training, Rows.whole(1)))

    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        files = measured(*(ConcatDataset(domains) for domains in few))
        rule = CacheRule(Path(folder), recipe.cache.format, recipe.cache.quality)
        copies = measured(
            *(ConcatDataset(tuple(build_cache(domain, rule, lambda _: None) for domain in domains)) for domains in few)
        )
    return Loading(files, copies)


def seconds_to_load(crops: PairedCrops | TargetCrops) -> float:
    """Of a batch in one process: the median of a few, after one that does not count."""
    count = len(crops) if isinstance(crops, TargetCrops) else _ROUNDS + 1
    crops[0]
    taken: list[float] = []
    while len(taken) < _ROUNDS and (len(taken) < 3 or sum(taken) < _PATIENCE):
        began = time.perf_counter()
        crops[(1 + len(taken)) % count]
        taken.append(time.perf_counter() - began)
    return median(taken)


def needed_workers(pair_seconds: float, pairs_per_second: float) -> int:
    """Loader processes, one core each, that keep up with training.

    Args:
        pair_seconds: of one core for a pair of crops.
        pairs_per_second: that training takes.
    """
    return max(math.ceil(pair_seconds * pairs_per_second), 1)


def loading_text(
    recipe: Recipe,
    loading: Loading,
    stage_seconds: Mapping[str, float],
    gpu_seconds: Mapping[str, float] | None = None,
    cores: int | None = None,
) -> str:
    """What to say of a recipe's data before a run.

    Args:
        recipe: complete.
        loading: measured.
        stage_seconds: per step, of the training stages that are to be done; may be empty.
        gpu_seconds: the same for one large GPU, when the device is another one.
        cores: of this machine; default: those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    text = (
        f"data: one core loads {_number(1 / loading.files)} pairs of crops a second from these files, "
        f"{_number(1 / loading.copies)} from reduced copies (cache.folder)"
    )
    for seconds, place in ((stage_seconds, "here"), (gpu_seconds or {}, "on one large GPU")):
        demand = fastest_stage(recipe, seconds)
        if demand is None:
            continue
        name, pairs = demand
        files, copies = needed_workers(loading.files, pairs), needed_workers(loading.copies, pairs)
        text += f"\n  {name} takes {_number(pairs)} pairs a second {place}: {_processes(files, copies)}"
        if place == "here" and files > cores:
            text += f"; this machine has {cores} core(s)"
            text += ", so reduced copies (cache.folder=DIR) help" if recipe.cache.folder is None else ""
    return text


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _processes(files: int, copies: int) -> str:
    if files == copies:
        return f"{files} loader process(es) keep up"
    return f"{files} loader processes keep up from the files, {copies} from copies"


def fastest_stage(recipe: Recipe, stage_seconds: Mapping[str, float]) -> tuple[str, float] | None:
    """The training stage that takes most pairs a second, and how many; None when no time of a step is known."""
    rows = _rows(recipe)
    demands = {name: rows[name] / seconds for name, seconds in stage_seconds.items() if name in rows and seconds > 0}
    return max(demands.items(), key=lambda item: item[1], default=None)


def copies_needed(recipe: Recipe, loading: Loading, stage_seconds: Mapping[str, float], num_workers: int) -> bool:
    """Whether ``cache.use: auto`` makes copies: the loader processes of all devices are too slow with the files.

    Without a loader process every loaded crop delays training: copies are made when loading takes a tenth of a step.
    """
    demand = fastest_stage(recipe, stage_seconds)
    if demand is None:
        return False
    return needed_workers(loading.files, demand[1]) > num_workers if num_workers else loading.files * demand[1] > 0.1


def _rows(recipe: Recipe) -> dict[str, int]:
    """Pairs per step of each training stage."""
    stages = (stage for stage in stages_of(recipe) if isinstance(stage, TrainingStage))
    return {stage.name: training_config(recipe, stage).batch_size for stage in stages}


def _first(domain: FileDataset) -> FileDataset:
    labels = None if domain.labels is None else domain.labels[:_SAMPLES]
    return replace(domain, images=domain.images[:_SAMPLES], labels=labels)


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader process, where OpenCV has one thread."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
