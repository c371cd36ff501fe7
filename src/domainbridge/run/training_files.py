"""What the stages of a start train on: files or reduced copies of them, with the class counts that sampling needs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from domainbridge.build.batches import TrainingData, oracle_data, rare_classes, training_data
from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.graph import PlannedStage, learns_from_target_labels, measured_seconds
from domainbridge.runtime.device import Runtime
from domainbridge.tools.cache import training_datasets
from domainbridge.tools.estimate import estimate
from domainbridge.tools.loading import copies_needed, loading_rate

__all__ = ["training_files"]


def training_files(
    recipe: Recipe,
    data: DataSets,
    planned: Sequence[PlannedStage],
    folder: Path,
    runtime: Runtime,
    callback: NullCallback,
    stop_requested: Callable[[], bool],
) -> TrainingData | None:
    """What training reads; missing reduced copies and class counts are made first. None after a requested stop."""
    processes = runtime.processes
    if not any(item.open for item in planned):
        return training_data(recipe, data, data.source, data.target)
    if not any(item.open and learns_from_target_labels(item.node.spec) for item in planned):
        data = replace(data, oracle={})
    copies = processes.broadcast(
        not processes.is_main or _uses_copies(recipe, data, planned, folder, runtime, callback)
    )
    with processes.main_first():
        datasets = training_datasets(recipe, data, callback.message, stop_requested, copies=copies)
        rare = rare_classes(recipe, data, folder / "class-counts.npz") if datasets is not None else None
        oracle_rare = None
        if datasets is not None and data.oracle:
            oracle_rare = rare_classes(recipe, data, folder / "oracle-class-counts.npz", oracle=True)
    if processes.any(datasets is None) or datasets is None:
        return None
    source, target, labeled = datasets
    oracle = oracle_data(recipe, data, labeled, oracle_rare)
    return replace(training_data(recipe, data, source, target, rare), oracle=oracle)


def _uses_copies(
    recipe: Recipe,
    data: DataSets,
    planned: Sequence[PlannedStage],
    folder: Path,
    runtime: Runtime,
    callback: NullCallback,
) -> bool:
    """Whether training reads reduced copies; ``cache.use: auto`` measures a few crops."""
    if recipe.cache.folder is None or recipe.cache.use == "always":
        return recipe.cache.folder is not None
    nodes = [item.node for item in planned]
    seconds = estimate(recipe, nodes, measured_seconds(nodes, folder)).step_seconds
    num_workers = runtime.num_workers * runtime.processes.count
    needed = copies_needed(recipe, loading_rate(recipe, data), seconds, num_workers)
    reason = f"{num_workers} loader process(es) {'do not keep' if needed else 'keep'} up with training from the files"
    callback.message(f"note: cache.use: auto: {reason}, so reduced copies are {'used' if needed else 'not made'}")
    return needed
