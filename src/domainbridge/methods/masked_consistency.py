"""Masked image consistency, MIC (Hoyer et al., CVPR 2023, arXiv 2212.01322), on self-training (docs/methods.md).

    loss = L_source + L_bridged + lambda * q * CE(f(M * image_t), pseudo_t)

``M`` hides a share of square blocks of the target image. ``pseudo_t`` is the EMA teacher's class on the whole image and
``q`` the share of its confident pixels, both shared with the bridged loss: the student has to infer a hidden region
from the context that is left. ``mixing: none`` leaves the bridged loss out.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import PositiveInt, Section
from domainbridge.methods.base import MethodConfig, StageInputs, StageSpec, TrainingStage, register_method
from domainbridge.methods.self_training import (
    PseudoLabel,
    SelfTraining,
    SelfTrainingConfig,
    objective_arguments,
    settings_of,
)
from domainbridge.methods.source_only import baseline_stages
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.masking import BLOCK_SIZE, MASK_RATIO, block_mask, mask_image
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.types import Batch

__all__ = [
    "MIC",
    "BlocksConfig",
    "MICConfig",
    "MaskedConfig",
    "MaskedConsistency",
    "MaskedMixing",
    "masked_stage",
]

MaskedMixing = Literal["class", "cut", "none"]


class BlocksConfig(Section):
    """Masked image consistency, MIC (arXiv 2212.01322)."""

    block_size: PositiveInt = Field(
        BLOCK_SIZE, le=20_000, description="side of a block, pixels; published for crops of 512 and more"
    )
    ratio: float = Field(MASK_RATIO, ge=0, lt=1, description="share of the blocks that the student does not see")
    weight: float = Field(1.0, gt=0, le=1e6, description="factor lambda of the masked loss")


class MaskedConfig(BlocksConfig):
    """Masked image consistency, MIC (arXiv 2212.01322)."""

    mixing: MaskedMixing = Field(
        "class", description="loss on mixed images beside the masked one: class (published), cut, or none"
    )


class MaskedConsistency(SelfTraining):
    """Self-training on mixed images, and consistency of masked target images."""

    def __init__(
        self,
        student: Segmenter,
        mixing: MaskedMixing = "class",
        *,
        block_size: int = BLOCK_SIZE,
        ratio: float = MASK_RATIO,
        weight: float = 1.0,
        **self_training: object,
    ) -> None:
        """Defaults are the published values.

        Args:
            student: the network; its mean color fills the hidden blocks.
            mixing: of the bridged loss; "none": no such loss.
            block_size: side of a block, pixels.
            ratio: share of hidden blocks.
            weight: factor of the masked loss.
            self_training: further arguments of :class:`SelfTraining`.
        """
        super().__init__(student, "class" if mixing == "none" else mixing, **self_training)  # type: ignore[arg-type]
        self.num_losses = 2 if mixing == "none" else 3
        self.mixes = mixing != "none"
        self.block_size, self.ratio, self.weight = block_size, ratio, weight
        self.color = student.mean

    def student_losses(
        self, batch: Batch, pseudo: PseudoLabel, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """``source``, ``bridged`` (unless there is no mixing) and ``masked``, each from a forward pass of its own."""
        if self.mixes:
            yield from super().student_losses(batch, pseudo, generator)
        else:
            self.metrics = {"pseudo_label_share": pseudo.share}
            yield "source", self.pixel_loss(self.student(batch.source_image).logits, batch.source_label)
        yield "masked", self.masked_loss(batch, pseudo, generator)

    def masked_loss(self, batch: Batch, pseudo: PseudoLabel, generator: torch.Generator) -> Tensor:
        """lambda * CE(f(M * augment(image_t)), pseudo_t; weight q)."""
        image = self.augmented(batch.target_image, generator, batch.place)
        mask = block_mask(image, generator, block_size=self.block_size, ratio=self.ratio, rows=batch.place)
        logits = self.student(mask_image(mask, image, self.color)).logits
        return self.weight * self.pixel_loss(logits, pseudo.label, pseudo.weight)


def masked_stage(
    name: str,
    config: SelfTrainingConfig,
    masked: MaskedConfig,
    augmentation: AugmentationConfig,
    *,
    init: str | None,
    lr_factor: float = 1.0,
    published: bool = False,
) -> TrainingStage:
    """Masked consistency as a stage; arguments as of :func:`domainbridge.methods.self_training.self_training_stage`."""

    def objective(student: Segmenter, inputs: StageInputs) -> MaskedConsistency:
        arguments = objective_arguments(config, augmentation, inputs, published=published)
        return MaskedConsistency(student, **masked.model_dump(), **arguments)

    return TrainingStage(
        name=name,
        kind="masked-consistency",
        inputs=(init,) if init is not None else (),
        settings={**settings_of(config, augmentation), "masked": masked.model_dump(mode="json")},
        objective=objective,
        init=init,
        lr_factor=lr_factor,
        student_passes=2 if masked.mixing == "none" else 3,
        teacher_passes=1,
        ema_teachers=1,
    )


class MICConfig(MethodConfig):
    """Keys of `method: masked-consistency`."""

    masked: MaskedConfig = MaskedConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


@register_method("masked-consistency")
class MIC:
    """One student, one EMA teacher, mixed and masked images."""

    config_class: ClassVar[type[Section]] = MICConfig
    stage_names = ("source-only", "masked-consistency")

    def __init__(self, config: MICConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """The baselines that the recipe asks for, then the path."""
        config = self.config
        path = masked_stage(
            "masked-consistency",
            config.self_training,
            config.masked,
            config.augmentation,
            init="source-only" if config.warm_start else None,
            published=self.published,
        )
        return [*baseline_stages(config), path]
