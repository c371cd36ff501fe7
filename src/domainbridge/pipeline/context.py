"""What every stage of a run shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domainbridge.config.schema import Recipe
from domainbridge.data.samples import Samples
from domainbridge.pipeline.datasets import DataSets
from domainbridge.training.loop import Progress
from domainbridge.training.runtime import Runtime

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """What every stage of a run shares.

    Attributes:
        recipe: complete.
        data: its files.
        source: what training reads of all sources, one after the other: the files, or their reduced copies.
        target: likewise of the targets.
        folder: of the run.
        runtime: device and workers.
        report: called with the stage's name and each progress report.
        stop_requested: asked after every step.
    """

    recipe: Recipe
    data: DataSets
    source: Samples
    target: Samples
    folder: Path
    runtime: Runtime
    report: Callable[[str, Progress], None]
    stop_requested: Callable[[], bool]
