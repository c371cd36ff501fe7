"""What every stage of a run shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domainbridge.build.batches import TrainingData
from domainbridge.config.schema import Recipe
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.runtime.device import Runtime

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """What every stage of a run shares.

    Attributes:
        recipe: complete.
        data: what training reads.
        folder: of the run.
        runtime: device and workers.
        callback: told of what happens; does nothing in processes other than the main one.
        stop_requested: asked after every step.
    """

    recipe: Recipe
    data: TrainingData
    folder: Path
    runtime: Runtime
    callback: NullCallback
    stop_requested: Callable[[], bool]
