"""Pseudo-labels denoised by prototypes, after ProDA (Zhang et al., CVPR 2021, arXiv 2101.10979; docs/methods.md).

    w = softmax(-|| z - c_k ||_2),   pseudo_t = argmax_k w_k * softmax(f'(image_t))_k

Self-training on mixed images (step 1) with other pseudo-labels: a class whose prototype is far from the pixel's feature
loses probability. ``f'`` is the EMA teacher, ``z`` its feature, and ``c_k`` the running mean of its features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.methods.base import MethodConfig, StageInputs, StageSpec, register_method
from domainbridge.methods.distillation import TeacherOutput
from domainbridge.methods.prototypes import PrototypeBank, RunningPrototypesConfig, empty_bank, moved_bank
from domainbridge.methods.self_training import (
    Mixing,
    PseudoLabel,
    SelfTraining,
    SelfTrainingConfig,
    objective_arguments,
    self_training_stage,
)
from domainbridge.methods.source_only import baseline_stages
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.ops.upsample import row_chunks, upsample
from domainbridge.types import Batch

__all__ = ["ProDA", "PrototypeDenoising", "PrototypeDenoisingConfig", "denoised_label"]


def denoised_label(output: Segmentation, bank: PrototypeBank, size: tuple[int, int]) -> Tensor:
    """argmax_k w_k * softmax(logits)_k at pixel resolution, int64 (batch, height, width).

    Args:
        output: of the teacher.
        bank: the teacher's prototypes; a class without a prototype is no pseudo-label, unless none has one.
        size: (height, width) of the image.
    """
    reader = TeacherOutput(output, bank, size)
    return torch.cat([reader.rectified_probabilities(rows).max(1).indices for rows in row_chunks(size[0])], 1)


class PrototypeDenoising(SelfTraining):
    """Self-training whose pseudo-labels the teacher's prototypes correct.

    Attributes:
        bank: the teacher's prototypes; those of the steps before denoise a step.
    """

    def __init__(
        self,
        student: Segmenter,
        mixing: Mixing = "class",
        *,
        min_pixels: int = 10,
        max_count: int = 200,
        prototypes_over_devices: Callable[[Tensor], Tensor] | None = None,
        **self_training: Any,
    ) -> None:
        """Defaults are those of the recipe.

        Args:
            student: the network.
            mixing: see :class:`SelfTraining`.
            min_pixels: a class with fewer predicted pixels in a crop does not count.
            max_count: cap of the running mean's count of steps.
            prototypes_over_devices: mean of a tensor over the devices that share a batch; None for one device.
            self_training: further arguments of :class:`SelfTraining`.
        """
        super().__init__(student, mixing, **self_training)
        self.moved = partial(
            moved_bank, min_pixels=min_pixels, max_count=max_count, mean_over_devices=prototypes_over_devices
        )
        classifier = student.head.classifier
        self.bank = empty_bank(classifier.out_channels, classifier.in_channels, student.mean.device)
        self.corrected = torch.zeros((), device=student.mean.device)

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source`` and ``bridged``, as in step 1."""
        yield from super().losses(batch, generator)
        self.metrics = {
            **self.metrics,
            "corrected_share": self.corrected,
            "prototype_share": self.bank.present.float().mean(),
        }

    @torch.no_grad()
    def pseudo_label(self, target_image: Tensor, target_domain: Sequence[str] = ()) -> PseudoLabel:
        """The denoised class; the weight is the share of confident pixels of the teacher, as in step 1."""
        size = (target_image.shape[-2], target_image.shape[-1])
        output = self.teacher.output(target_image, target_domain)
        pseudo = self.pseudo_label_of(upsample(output.logits.float(), size))
        with torch.autocast(target_image.device.type, enabled=False):
            label = denoised_label(output, self.bank, size)
        self.corrected = (label != pseudo.label).float().mean()
        self.bank = self.moved(self.bank, output, size)
        return pseudo._replace(label=label)

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher, and the prototypes."""
        teacher = {f"teacher.{key}": value for key, value in super().state_dict().items()}
        return {**teacher, "vectors": self.bank.vectors, "counts": self.bank.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put both back."""
        prefix = "teacher."
        super().load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        device = self.bank.vectors.device
        self.bank = PrototypeBank(state["vectors"].to(device), state["counts"].to(device))


class PrototypeDenoisingConfig(MethodConfig):
    """Keys of `method: prototype-denoising`."""

    mixing: Mixing = Field("class", description="class: ClassMix; cut: CutMix")
    denoising: RunningPrototypesConfig = RunningPrototypesConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()


@register_method("prototype-denoising")
class ProDA:
    """One student, one EMA teacher with prototypes."""

    config_class: ClassVar[type[Section]] = PrototypeDenoisingConfig
    stage_names = ("source-only", "prototype-denoising")

    def __init__(self, config: PrototypeDenoisingConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """The baselines that the recipe asks for, then the path."""
        config = self.config
        path = self_training_stage(
            "prototype-denoising",
            config.mixing,
            config.self_training,
            config.augmentation,
            init="source-only" if config.warm_start else None,
            published=self.published,
        )
        settings = {
            **path.settings,
            "mixing": config.mixing,
            "denoising": config.denoising.model_dump(mode="json"),
        }
        path = replace(path, kind="prototype-denoising", settings=settings, objective=self._objective)
        return [*baseline_stages(config), path]

    def _objective(self, student: Segmenter, inputs: StageInputs) -> PrototypeDenoising:
        config = self.config
        arguments = objective_arguments(config.self_training, config.augmentation, inputs, published=self.published)
        return PrototypeDenoising(
            student,
            config.mixing,
            **config.denoising.model_dump(),
            prototypes_over_devices=inputs.mean_over_devices,
            **arguments,
        )
