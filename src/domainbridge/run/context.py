"""What every stage of a run shares, and what it reads of finished stages."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from domainbridge.build.batches import TrainingData
from domainbridge.config.schema import Recipe
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.prototype_files import load_prototypes
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.signals import StopRequested

if TYPE_CHECKING:
    from domainbridge.run.graph import Node
    from domainbridge.run.work import Phase

__all__ = ["Context", "FinishedStages"]


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

    def counted(self, node: "Node", phase: "Phase") -> Callable[[], None]:
        """A function to call after every image of a phase that all processes share: shows progress.

        Raises:
            StopRequested: by that function, after a requested stop of a single process.
        """
        seen = 0
        self.callback.advance(node, phase, seen)

        def next_image() -> None:
            nonlocal seen
            seen += self.runtime.processes.count
            self.callback.advance(node, phase, seen)
            if self.runtime.processes.count == 1 and self.stop_requested():
                raise StopRequested

        return next_image


@dataclass(frozen=True)
class FinishedStages:
    """The run folder as :class:`domainbridge.methods.base.StageInputs`."""

    folder: Path
    runtime: Runtime
    channels_last: bool

    def model(self, stage: str) -> Segmenter:
        """The finished student of a stage, on the device, in evaluation mode."""
        network, _ = load_model(self.folder / stage / "model")
        return self.runtime.place(network, channels_last=self.channels_last)

    def prototypes(self, stage: str, student: str) -> PrototypeBank:
        """The prototypes that a prototype stage collected for one of its students, on the device."""
        return load_prototypes(self.folder / stage, student, self.runtime.device)

    def mean_over_devices(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        return self.runtime.processes.mean(value)
