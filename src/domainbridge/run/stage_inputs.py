"""Results of finished stages, for the objectives of later ones."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.prototype_files import load_prototypes
from domainbridge.runtime.device import Runtime

__all__ = ["FinishedStages"]


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
