"""Going on from a finished model on a new target, without any source image (docs/methods.md).

    loss = lambda * q * CE(f(M * augment(image_t)), pseudo_t)   and, or,   q * CE(f(augment(image_t)), pseudo_t)

Teacher, pseudo-label and weight are those of step 1; the masked term is that of masked consistency (MIC, arXiv
2212.01322). Student and teacher begin as the finished model.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.methods.base import ModelStage, StageInputs, StageSpec, TrainingStage, register_method
from domainbridge.methods.masked_consistency import BlocksConfig, MaskedConsistency
from domainbridge.methods.self_training import PseudoLabel, SelfTrainingConfig, objective_arguments, settings_of
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.types import Batch

__all__ = ["SourceFree", "SourceFreeConfig", "SourceFreeMethod"]

Consistency = Literal["masked", "augmented"]


class SourceFree(MaskedConsistency):
    """Consistency of target images with the EMA teacher's pseudo-labels; the batch's source is not read."""

    def __init__(
        self, student: Segmenter, consistency: tuple[Consistency, ...] = ("masked",), **arguments: Any
    ) -> None:
        """``consistency``: which losses; ``arguments``: further ones of :class:`MaskedConsistency`."""
        super().__init__(student, "none", **arguments)
        self.consistency, self.num_losses = consistency, len(consistency)

    def student_losses(
        self, batch: Batch, pseudo: PseudoLabel, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """``augmented`` and ``masked``, those that are asked for."""
        self.metrics = {"pseudo_label_share": pseudo.share}
        if "augmented" in self.consistency:
            image = self.augmented(batch.target_image, generator, batch.place)
            yield "augmented", self.pixel_loss(self.student(image).logits, pseudo.label, pseudo.weight)
        if "masked" in self.consistency:
            yield "masked", self.masked_loss(batch, pseudo, generator)


class SourceFreeConfig(Section):
    """Keys of `method: source-free`."""

    init: str = Field(min_length=1, description="path to the finished model's folder, relative to the current folder")
    consistency: tuple[Consistency, ...] = Field(
        ("masked",), min_length=1, max_length=2, description="losses on the target: masked, augmented, or both"
    )
    masked: BlocksConfig = BlocksConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("consistency")
    @classmethod
    def _each_once(cls, value: tuple[Consistency, ...]) -> tuple[Consistency, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"each loss at most once, found {', '.join(value)}")
        return value


@register_method("source-free")
class SourceFreeMethod:
    """The finished model as it is, then the same one adapted to the target."""

    config_class: ClassVar[type[Section]] = SourceFreeConfig
    stage_names = ("source-free",)
    sources = "none"

    def __init__(self, config: SourceFreeConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """``initial``, which is scored only, and the adapted one."""
        config = self.config

        def objective(student: Segmenter, inputs: StageInputs) -> SourceFree:
            arguments = objective_arguments(config.self_training, config.augmentation, inputs, published=self.published)
            return SourceFree(student, config.consistency, **config.masked.model_dump(), **arguments)

        settings = settings_of(config.self_training, config.augmentation)
        settings |= config.model_dump(mode="json", include={"consistency", "masked"})
        return [
            ModelStage(name="initial", kind="finished model", model=config.init, key="init", baseline=True),
            TrainingStage(
                name="source-free",
                kind="source-free",
                inputs=("initial",),
                settings=settings,
                objective=objective,
                init="initial",
                supervision="none",
                student_passes=len(config.consistency),
                teacher_passes=1,
                ema_teachers=1,
            ),
        ]
