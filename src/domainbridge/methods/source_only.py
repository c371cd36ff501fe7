"""The stages to compare with: training on the source alone, that model with the target's BatchNorm statistics (AdaBN),
training on the target's own labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.methods.base import AdaBNStage, MethodConfig, StageSpec, TrainingStage, register_method
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.losses import PixelLoss
from domainbridge.types import Batch

__all__ = ["SourceOnly", "SourceOnlyConfig", "SourceOnlyMethod", "baseline_stages", "oracle_stage", "source_only_stage"]


class SourceOnly:
    """Objective of the baseline: cross entropy on the source; the target is unseen."""

    num_losses = 1
    pixel_loss = PixelLoss()

    def __init__(self, student: Segmenter) -> None:
        self.student = student
        self.metrics: Mapping[str, Tensor] = {}

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """The student alone."""
        return (self.student,)

    def before_step(self, step: int) -> None:
        """Nothing follows the step count."""

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source``: CE(f(image_s), label_s)."""
        yield "source", self.pixel_loss(self.student(batch.source_image).logits, batch.source_label)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
        assert not state


def source_only_stage() -> TrainingStage:
    """The baseline as a stage."""
    return TrainingStage(
        name="source-only",
        kind="source-only",
        objective=lambda student, inputs: SourceOnly(student),
        uses_target=False,
        student_passes=1,
        baseline=True,
    )


def baseline_stages(config: MethodConfig) -> list[StageSpec]:
    """The baselines that a recipe asks for: ``source_only`` and ``adabn``. No other stage depends on the second."""
    stages: list[StageSpec] = [source_only_stage()] if config.source_only else []
    if config.adabn:
        stages.append(
            AdaBNStage(name="adabn", kind="adabn", inputs=("source-only",), student="source-only", baseline=True)
        )
    return stages


def oracle_stage() -> TrainingStage:
    """The upper bound: the objective, the start and the steps of source-only, on labels of the targets."""
    return replace(
        source_only_stage(),
        name="oracle",
        kind="oracle",
        stream="oracle",
        supervision="target",
        settings_of="source-only",
    )


class SourceOnlyConfig(MethodConfig):
    """Keys of `method: source-only`."""

    source_only: bool = Field(True, description="true: stage source-only is all that this method trains")

    @field_validator("source_only")
    @classmethod
    def _trains_something(cls, value: bool) -> bool:
        if not value:
            raise ValueError("method source-only trains nothing else; leave the key out")
        return value


@register_method("source-only")
class SourceOnlyMethod:
    """The baselines without any adaptation."""

    config_class: ClassVar[type[Section]] = SourceOnlyConfig
    stage_names = ("source-only",)

    def __init__(self, config: SourceOnlyConfig, *, published: bool) -> None:
        self.config = config

    def stages(self) -> list[StageSpec]:
        """Stage ``source-only``, and ``adabn`` where the recipe asks for it."""
        return baseline_stages(self.config)
