"""``stages.NAME.extend``: a stage that goes on from a finished one for more steps.

The extension is a stage of its own, ``NAME-extended``, so the finished stage keeps its identity, its folder and its
scores. Stages that read the finished one read the extension instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from domainbridge.config.schema import Recipe
from domainbridge.config.training import StageOverride, TrainingConfig
from domainbridge.methods.base import (
    AdaBNStage,
    Objective,
    PrototypeStage,
    StageInputs,
    StageSpec,
    TrainingStage,
)
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.models.segmenter import Segmenter

__all__ = ["extension_training", "extensions_of", "problems_of_extensions", "with_extensions"]

_WARMUP_SHARE = 10
"""An extension warms up over at most a tenth of its steps: the moments of AdamW begin anew."""


def extensions_of(recipe: Recipe) -> dict[str, str]:
    """Names of the stages that extend others -> names of those."""
    return {_extended(name): name for name, changes in recipe.stages.items() if changes.extend is not None}


def _extended(name: str) -> str:
    """Name of the stage that extends the stage ``name``."""
    return f"{name}-extended"


def extension_training(training: TrainingConfig, steps: int) -> TrainingConfig:
    """`training` of an extension: a warm restart, the same rate and decay again (SGDR, arXiv 1608.03983).

    Args:
        training: of the extended stage.
        steps: of the extension.
    """
    warmup = min(training.warmup_steps, steps // _WARMUP_SHARE)
    return training.model_copy(update={"steps": steps, "warmup_steps": warmup})


def with_extensions(stages: Sequence[StageSpec], names: Sequence[str]) -> list[StageSpec]:
    """The stages with the extensions of some of them, each before the first stage that reads its result.

    Args:
        stages: in an order in which they can run.
        names: of the training stages that are extended.
    """
    latest = {stage.name: _extended(stage.name) for stage in stages if stage.name in names}
    if not latest:
        return list(stages)
    waiting: dict[str, StageSpec] = {}
    result: list[StageSpec] = []
    for position, stage in enumerate(stages):
        result += [waiting.pop(name) for name in stage.inputs if name in waiting]
        stage = _reading(stage, latest)
        result.append(stage)
        if stage.name in latest and isinstance(stage, TrainingStage):
            extension = _extension(stage)
            if any(stage.name in later.inputs for later in stages[position + 1 :]):
                waiting[stage.name] = extension
            else:
                result.append(extension)
    return result


def problems_of_extensions(recipe: Recipe, stages: Sequence[TrainingStage], last: str) -> list[str]:
    """What is wrong with ``extend``.

    Args:
        recipe: complete.
        stages: the recipe's.
        last: name of the stage that can be the method's result.
    """
    problems = []
    for name, extended in extensions_of(recipe).items():
        given = recipe.stages.get(name, StageOverride()).model_dump(exclude_none=True)
        for key in ("steps", "extend"):
            if key in given:
                problems.append(
                    f"stages.{name}.{key}: the steps of {name} are stages.{extended}.extend; change this number"
                )
    for stage in stages:
        compared = stage.baseline or stage.supervision == "target"
        if compared and stage.name != last and stage.name in extensions_of(recipe).values():
            problems.append(
                f"stages.{stage.name}.extend: results are compared with {stage.name}; give the stage more steps "
                f"(stages.{stage.name}.steps)"
            )
    return problems


def _extension(stage: TrainingStage) -> TrainingStage:
    return replace(
        stage,
        name=_extended(stage.name),
        stream="",  # that of its name
        extends=stage.name,
        init=stage.name,
        inputs=(stage.name, *(name for name in stage.inputs if name != stage.init)),
    )


def _reading(stage: StageSpec, latest: Mapping[str, str]) -> StageSpec:
    """The stage, with other names of the stages that it reads."""
    if not set(stage.inputs) & set(latest):
        return stage
    stage = replace(stage, inputs=tuple(latest.get(name, name) for name in stage.inputs))
    if isinstance(stage, PrototypeStage):
        return replace(stage, students=tuple(latest.get(name, name) for name in stage.students))
    if isinstance(stage, AdaBNStage):
        return replace(stage, student=latest.get(stage.student, stage.student))
    assert isinstance(stage, TrainingStage)
    build = stage.objective

    def objective(student: Segmenter, inputs: StageInputs) -> Objective:
        return build(student, _Latest(inputs, latest))

    init = None if stage.init is None else latest.get(stage.init, stage.init)
    return replace(stage, init=init, objective=objective)


@dataclass(frozen=True)
class _Latest:
    """Results of earlier stages; those of an extended stage are its extension's."""

    inputs: StageInputs
    latest: Mapping[str, str]

    def model(self, stage: str) -> Segmenter:
        return self.inputs.model(self.latest.get(stage, stage))

    def prototypes(self, stage: str, student: str) -> PrototypeBank:
        return self.inputs.prototypes(stage, self.latest.get(student, student))

    def mean_over_devices(self, value: Tensor) -> Tensor:
        return self.inputs.mean_over_devices(value)
