"""What a start has to do, in units that progress is counted in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainbridge.build.batches import batchnorm_count
from domainbridge.build.datasets import DataSets
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.decode import image_size
from domainbridge.errors import DataError
from domainbridge.methods.base import ModelStage, PrototypeStage, TrainingStage
from domainbridge.run.graph import PlannedStage, measured_seconds
from domainbridge.run.image_recorder import images_to_predict
from domainbridge.run.label_free import LABEL_FREE, label_free_images, stages_to_score
from domainbridge.run.results import is_scored
from domainbridge.run.stage_status import StageState

__all__ = ["Phase", "Work", "planned_work"]

Phase = Literal["training", "statistics", "prototypes", "scoring", "label-free scoring"]

_BACKWARD = 2
"""A backward pass does twice the arithmetic of its forward pass."""
_LABEL_FREE_PASSES = 5
"""About how many forward passes an image takes for its scores without labels."""


@dataclass(frozen=True)
class Work:
    """One phase of a stage.

    Attributes:
        stage: name.
        phase: what is counted: training steps, batches of BatchNorm statistics or of prototypes, scored images,
            images for scores without labels.
        kind: phases of one kind cost the same per unit.
        first: units that earlier starts have done.
        units: all of them.
        cost: of a unit, in forward passes of one training crop: an estimate before anything is measured.
        seconds: per unit, as earlier starts measured it; None: not measured.
    """

    stage: str
    phase: Phase
    kind: str
    first: int
    units: int
    cost: float
    seconds: float | None = None


def planned_work(
    recipe: Recipe, data: DataSets, planned: Sequence[PlannedStage], folder: Path, final: str
) -> list[Work]:
    """The phases of the stages of this start that are not done; ``final``: name of the final stage."""
    measured = measured_seconds((item.node for item in planned), folder)
    by_kind = {item.node.spec.kind: measured[item.name] for item in planned if item.name in measured}
    images, cost = images_to_predict(recipe, data), _image_cost(recipe, data)
    nodes, unlabeled = [item.node for item in planned], label_free_images(recipe, data)
    work = []
    for item in planned:
        spec, steps = item.node.spec, item.node.steps or 0
        if item.open:
            started = StageState.read(folder / item.name).started if item.status.action == "resume" else None
            first = started["step"] if started is not None else 0
            if isinstance(spec, TrainingStage) and item.node.training is not None:
                passes = (1 + _BACKWARD) * spec.student_passes + spec.teacher_passes
                rows = item.node.training.batch_size
                work.append(Work(item.name, "training", spec.kind, first, steps, passes * rows, by_kind.get(spec.kind)))
                if spec.uses_target and item.node.training.adapt_batchnorm == "target":
                    batches = batchnorm_count(rows, sum(len(files) for files in data.targets))
                    work.append(Work(item.name, "statistics", "statistics", 0, batches, rows))
            elif not isinstance(spec, ModelStage):
                students = len(spec.students) if isinstance(spec, PrototypeStage) else 1
                phase: Phase = "prototypes" if isinstance(spec, PrototypeStage) else "statistics"
                work.append(Work(item.name, phase, spec.kind, first, steps, students * recipe.training.batch_size))
        scored = not item.open and is_scored(item.node, final, recipe, data, folder)
        kept = not item.open and not stages_to_score(item.node, nodes, recipe, folder)
        if item.node.keeps_model and unlabeled and not kept:
            work.append(Work(item.name, LABEL_FREE, LABEL_FREE, 0, unlabeled, cost * _LABEL_FREE_PASSES))
        if item.node.keeps_model and images and not scored:
            work.append(Work(item.name, "scoring", "scoring", 0, images, cost))
    return work


def _image_cost(recipe: Recipe, data: DataSets) -> float:
    """Of a whole image of the first target, in crops."""
    files: FileDataset = next(iter(data.validation.values()), data.targets[0])
    try:
        height, width = image_size(files.images[0], files.image_rule)
    except (IndexError, DataError):
        return 1.0
    if files.resize is not None:
        height, width = files.resize.size_for(height, width)
    return height * width / (recipe.crop.height * recipe.crop.width)
