"""The recipe as a whole: one adaptation, complete; its sections are in ``sections`` and ``domains``."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from domainbridge.config.domains import LabelSpaceDefinition, Section, Source, Target
from domainbridge.config.sections import (
    Augmentation,
    Cache,
    Crop,
    Distillation,
    Evaluation,
    Model,
    Prototypes,
    Runtime,
    Sampling,
    SelfTraining,
    StageOverride,
    Training,
)

__all__ = ["NAME", "Recipe"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""What a recipe may be called: its run folder has the same name."""
_STAGE = re.compile(r"^(source-only|r[1-9]-(cut|class|distil))$")
_LATER_PATH = re.compile(r"^r[2-9]-(cut|class)$")


class Recipe(Section):
    """One adaptation, complete."""

    name: str = Field(min_length=1, pattern=NAME, description="also the run folder's: letters, digits and . _ + -")
    seed: int = Field(0, ge=0, description="of everything random: order, crops, masks, colours, initial heads")
    fidelity: Literal["fixed", "published"] = Field("fixed", description="published: with the authors' quirks")
    data_root: str | None = Field(None, description="default: $DOMAINBRIDGE_DATA, else 'data'")
    label_space: str | LabelSpaceDefinition = Field(
        "cityscapes19", description="what the network predicts: cityscapes19, camvid11, idd7, or your own"
    )
    sources: tuple[Source, ...] = Field(min_length=1, description="labelled domains")
    targets: tuple[Target, ...] = Field(min_length=1, description="unlabelled domains")
    rounds: int = Field(2, ge=1, le=9, description="of both paths, prototypes and distillation")
    later_rate: float = Field(
        0.1, gt=0, description="learning rate of the paths of round 2 and later / training.learning_rate (published)"
    )
    source_only: bool = Field(False, description="train the baseline without adaptation too")
    warm_start: bool = Field(
        False,
        description="where a stage would start from initial weights (round 1's paths, every distillation), start from "
        "the latest student instead: source-only's, later the last round's; for short schedules",
    )
    model: Model = Model()
    crop: Crop = Crop()
    sampling: Sampling = Sampling()
    training: Training = Training()
    stages: dict[str, StageOverride] = Field({}, description="stage name -> what differs from `training`")
    self_training: SelfTraining = SelfTraining()
    augmentation: Augmentation = Augmentation()
    prototypes: Prototypes = Prototypes()
    distillation: Distillation = Distillation()
    evaluation: Evaluation = Evaluation()
    cache: Cache = Cache()
    runtime: Runtime = Runtime()

    @field_validator("sources", "targets")
    @classmethod
    def _unique_names(cls, domains: tuple[Source, ...] | tuple[Target, ...]) -> object:
        names = [domain.name for domain in domains]
        if len(set(names)) != len(names):
            raise ValueError(f"names must differ from each other, found {names}")
        return domains

    @model_validator(mode="after")
    def _warm_start_has_a_start(self) -> "Recipe":
        if self.warm_start and not self.source_only:
            raise ValueError("warm_start: starts from the source-only student, so source_only must be true")
        return self

    @model_validator(mode="after")
    def _known_stages(self) -> "Recipe":
        unknown = [name for name in self.stages if not _STAGE.match(name)]
        if unknown:
            known = ", ".join(self.trained_stages())
            raise ValueError(f"stages: {', '.join(unknown)} unknown; this recipe trains {known}")
        return self

    @model_validator(mode="after")
    def _batches_have_parts(self) -> "Recipe":
        uneven = []
        for stage in self.trained_stages():
            training = self.training_of(stage)
            if training.batch_size % training.accumulate:
                uneven.append(
                    f"{stage}: accumulate {training.accumulate} does not divide batch_size {training.batch_size}"
                )
        if uneven:
            raise ValueError("training: " + "; ".join(uneven))
        return self

    @model_validator(mode="after")
    def _compiled_or_recomputed(self) -> "Recipe":
        if self.runtime.compile and any(self.training_of(stage).recompute for stage in self.trained_stages()):
            raise ValueError(
                "runtime.compile and training.recompute: torch cannot compile blocks that are computed "
                "again without counting their statistics twice; choose one of the two"
            )
        return self

    def trained_stages(self) -> tuple[str, ...]:
        """Names of the stages that train a network, in order; source-only may be set up while switched off."""
        rounds = range(1, self.rounds + 1)
        return ("source-only", *(f"r{r}-{kind}" for r in rounds for kind in ("cut", "class", "distil")))

    def training_of(self, stage: str) -> Training:
        """`training` with the stage's own values in place."""
        own = self.stages.get(stage, StageOverride()).model_dump(exclude_none=True)
        if _LATER_PATH.match(stage):
            own.setdefault("learning_rate", self.training.learning_rate * self.later_rate)
        return self.training.model_copy(update=own)
