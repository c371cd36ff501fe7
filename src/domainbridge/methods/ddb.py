"""Deliberated domain bridging, DDB (Chen et al., NeurIPS 2022, arXiv 2209.07695), as a list of stages.

Per round: two students learn on mixed images, one along the coarse region path (CutMix), one along the fine class path
(ClassMix); prototypes of both are collected on the target; a third student is distilled from the two. The next round's
paths start from that student (docs/method.md, section 5).
"""

from typing import ClassVar

from pydantic import Field

from domainbridge.config.base import Section
from domainbridge.methods.base import (
    MethodConfig,
    PrototypeStage,
    StageInputs,
    StageSpec,
    TrainingStage,
    register_method,
)
from domainbridge.methods.distillation import Distillation, DistillationConfig, Teacher
from domainbridge.methods.prototypes import PrototypesConfig
from domainbridge.methods.self_training import Mixing, SelfTrainingConfig, self_training_stage
from domainbridge.methods.source_only import baseline_stages
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.photometric import AugmentationConfig

__all__ = ["DDB", "DDBConfig"]

_MAX_ROUNDS = 9
_PATHS: tuple[Mixing, ...] = ("cut", "class")


class DDBConfig(MethodConfig):
    """Keys of `method: ddb`."""

    rounds: int = Field(2, ge=1, le=_MAX_ROUNDS, description="rounds of both paths, prototypes and distillation")
    later_rounds_lr_factor: float = Field(
        0.1,
        gt=0,
        le=1e6,
        description="learning rate of the paths of round 2 and later / training.learning_rate (published)",
    )
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    prototypes: PrototypesConfig = PrototypesConfig()
    distillation: DistillationConfig = DistillationConfig()


@register_method("ddb")
class DDB:
    """Two paths, prototypes, distillation, in rounds."""

    config_class: ClassVar[type[Section]] = DDBConfig

    def __init__(self, config: DDBConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Training stages of any number of rounds."""
        rounds = range(1, _MAX_ROUNDS + 1)
        return ("source-only", *(f"r{number}-{part}" for number in rounds for part in (*_PATHS, "distill")))

    def stages(self) -> list[StageSpec]:
        """Both paths of a round start from the last round's student; distillation starts from initial weights.

        With ``warm_start`` everything starts from the latest student.
        """
        config = self.config
        stages = baseline_stages(config)
        latest = "source-only" if config.warm_start else None
        for number in range(1, config.rounds + 1):
            lr_factor = config.later_rounds_lr_factor if number > 1 else 1.0
            for mixing in _PATHS:
                stages.append(
                    self_training_stage(
                        f"r{number}-{mixing}",
                        mixing,
                        config.self_training,
                        config.augmentation,
                        init=latest,
                        lr_factor=lr_factor,
                        published=self.published,
                    )
                )
            paths = tuple(f"r{number}-{mixing}" for mixing in _PATHS)
            prototypes = f"r{number}-prototypes" if config.distillation.prototypes else None
            if prototypes is not None:
                stages.append(self._prototype_stage(prototypes, paths))
            init = latest if config.warm_start else None
            stages.append(self._distillation_stage(number, paths, prototypes, init))
            latest = f"r{number}-distill"
        return stages

    def _prototype_stage(self, name: str, paths: tuple[str, ...]) -> PrototypeStage:
        config = self.config.prototypes
        settings = {"prototypes": config.model_dump(mode="json")}
        return PrototypeStage(
            name=name, kind="prototypes", inputs=paths, students=paths, config=config, settings=settings
        )

    def _distillation_stage(
        self, number: int, paths: tuple[str, ...], prototypes: str | None, init: str | None
    ) -> TrainingStage:
        config = self.config.distillation

        def objective(student: Segmenter, inputs: StageInputs) -> Distillation:
            teachers = tuple(
                Teacher(inputs.model(path), inputs.prototypes(prototypes, path) if prototypes else None)
                for path in paths
            )
            return Distillation(
                student,
                teachers,
                augmentation=self.config.augmentation,
                vertical_blur=not self.published,
                use_missing_prototypes=self.published,
                **config.model_dump(exclude={"prototypes", "distort_source"}),
            )

        return TrainingStage(
            name=f"r{number}-distill",
            kind="distillation",
            inputs=tuple(name for name in (init, *paths, prototypes) if name is not None),
            settings=self.config.model_dump(mode="json", include={"distillation", "augmentation"}),
            stream=f"r{number}-distil",  # the stage's name before it was renamed: the same draws as then
            objective=objective,
            init=init,
            distort_source=config.distort_source,
            teacher_passes=len(paths),
        )
