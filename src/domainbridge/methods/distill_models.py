"""Distillation of finished models into one network, with or without source images (docs/methods.md).

The teachers are model folders of any size that predict the same classes. Prototypes, ensemble and losses are those of
step 2 (docs/method.md, sections 3 and 4); without sources the loss on the target is the only one.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.config.domains import SourceConfig
from domainbridge.methods.base import ModelStage, StageInputs, StageSpec, TrainingStage, register_method
from domainbridge.methods.distillation import Distillation, EnsembleConfig, prototype_stage, teachers_of
from domainbridge.methods.prototypes import PrototypesConfig
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.types import Batch

__all__ = ["DistillModels", "DistillModelsConfig", "TargetDistillation"]


class TargetDistillation(Distillation):
    """Distillation on target images alone."""

    num_losses = 1

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``target``; the batch's source is not read."""
        yield "target", self.target_loss(self.student_image(batch, generator), batch.target_image)


class DistillModelsConfig(Section):
    """Keys of `method: distill-models`."""

    teachers: tuple[str, ...] = Field(
        min_length=1,
        max_length=9,
        description="paths to finished model folders of any size, relative to the current folder; all predict the "
        "classes of label_space in its order",
    )
    sources: tuple[SourceConfig, ...] = Field(
        (), max_length=1000, description="labeled domains for a supervised loss beside; default: none"
    )
    augmentation: AugmentationConfig = AugmentationConfig()
    prototypes: PrototypesConfig = PrototypesConfig()
    distillation: EnsembleConfig = EnsembleConfig()


@register_method("distill-models")
class DistillModels:
    """The teachers, their prototypes, the student."""

    config_class: ClassVar[type[Section]] = DistillModelsConfig
    stage_names = ("distill",)
    sources = "optional"

    def __init__(self, config: DistillModelsConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """``teacher-1`` and so on, which are scored only; ``prototypes`` where wanted; ``distill``."""
        config = self.config
        names = tuple(f"teacher-{number}" for number in range(1, len(config.teachers) + 1))
        stages: list[StageSpec] = [
            ModelStage(name=name, kind="finished model", model=model, key="teachers", baseline=True)
            for name, model in zip(names, config.teachers, strict=True)
        ]
        inputs = names
        if config.distillation.prototypes:
            stages.append(prototype_stage("prototypes", names, config.prototypes))
            inputs = (*names, "prototypes")
        stages.append(
            TrainingStage(
                name="distill",
                kind="distillation",
                inputs=inputs,
                settings=config.model_dump(mode="json", include={"distillation", "augmentation"}),
                objective=lambda student, results: self._objective(student, results, names),
                distort_source=config.distillation.distort_source,
                supervision="source" if config.sources else "none",
                student_passes=2 if config.sources else 1,
                teacher_passes=len(names),
                teacher_models=config.teachers,
                cross_entropy=bool(config.sources) or config.distillation.mode == "hard",
            )
        )
        return stages

    def _objective(self, student: Segmenter, inputs: StageInputs, names: tuple[str, ...]) -> Distillation:
        config = self.config.distillation
        kind = Distillation if self.config.sources else TargetDistillation
        return kind(
            student,
            teachers_of(inputs, names, "prototypes" if config.prototypes else None),
            augmentation=self.config.augmentation,
            vertical_blur=not self.published,
            use_missing_prototypes=self.published,
            **config.model_dump(exclude={"prototypes", "distort_source"}),
        )
