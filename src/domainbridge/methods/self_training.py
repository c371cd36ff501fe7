"""Step 1: self-training on mixed images, along one of two paths (docs/method.md, sections 1 and 2).

    loss = CE(f(image_s), label_s) + CE(f(image_b), label_b; weight_b)

An EMA teacher predicts the clean target image: its class is the pseudo-label, the share of confident pixels in the
batch is the weight of all pseudo-labels. CutMix or ClassMix pastes source pixels onto the target image; the student
learns from the source image and from the mixed image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Probability, Section
from domainbridge.methods.base import StageInputs, TrainingStage
from domainbridge.methods.mean_teacher import EMA_DECAY, MeanTeacher, Statistics, TeacherStatistics
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.losses import PixelLoss
from domainbridge.ops.mixing import AREA_SHARE, class_mix, cut_mix, paste
from domainbridge.ops.photometric import AugmentationConfig, augment
from domainbridge.types import Batch, Rows

__all__ = [
    "CONFIDENCE",
    "Mixing",
    "PseudoLabel",
    "SelfTraining",
    "SelfTrainingConfig",
    "confident_pseudo_label",
    "objective_arguments",
    "self_training_stage",
    "settings_of",
]

Mixing = Literal["cut", "class"]

CONFIDENCE = 0.968
"""Published threshold of a confident pixel."""


class SelfTrainingConfig(Section):
    """Step 1: self-training on mixed images."""

    area_share: float = Field(AREA_SHARE, gt=0, lt=1, description="share of the crop that a CutMix rectangle covers")
    confidence: Probability = Field(
        CONFIDENCE, description="least value of the largest class probability of a confident pixel"
    )
    ema_decay: float = Field(EMA_DECAY, ge=0, lt=1, description="decay of the EMA teacher")
    teacher_statistics: Statistics | dict[str, Statistics] = Field(
        "batch",
        description="statistics of the teacher's BatchNorm: the target batch's (published; adapts to a camera or "
        "weather) or the student's running ones (for other class proportions in source and target); several targets: "
        "one of both for each, e.g. {fog: batch, camvid: student}",
    )
    confidence_over: Literal["device", "all"] = Field(
        "device", description="several devices: the confident share is each device's own (published) or that of all"
    )
    ignore_top: int = Field(0, ge=0, le=20_000, description="rows at the crop's top with pseudo-label weight 0")
    ignore_bottom: int = Field(
        0, ge=0, le=20_000, description="rows at the crop's bottom with weight 0, e.g. the car's hood"
    )


class PseudoLabel(NamedTuple):
    """Pseudo-labels of a target batch.

    Attributes:
        label: int64 (batch, height, width).
        weight: float32, broadcastable to (batch, height, width).
        share: share of confident pixels, a scalar.
    """

    label: Tensor
    weight: Tensor
    share: Tensor


class SelfTraining:
    """The objective of one path."""

    num_losses = 2
    pixel_loss = PixelLoss()

    def __init__(
        self,
        student: Segmenter,
        mixing: Mixing = "class",
        *,
        area_share: float = AREA_SHARE,
        confidence: float = CONFIDENCE,
        ema_decay: float = EMA_DECAY,
        teacher_statistics: TeacherStatistics = "batch",
        ignore_top: int = 0,
        ignore_bottom: int = 0,
        augmentation: AugmentationConfig | None = None,
        vertical_blur: bool = True,
        ignore_as_class: bool = False,
        mean_over_devices: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Defaults are the published values, without the published quirks.

        Args:
            student: the network.
            mixing: "cut" pastes a rectangle (CutMix), "class" the pixels of half of the classes (ClassMix).
            area_share: share of the crop that the rectangle covers.
            confidence: threshold of a confident pixel.
            ema_decay: the teacher's.
            teacher_statistics: see :class:`MeanTeacher`.
            ignore_top: rows at the crop's top whose pseudo-labels have weight 0.
            ignore_bottom: rows at the crop's bottom likewise.
            augmentation: of the mixed image; None for none.
            vertical_blur: False is a published quirk, see :func:`domainbridge.ops.photometric.blur`.
            ignore_as_class: True is a published quirk: ClassMix may draw 255 like a class.
            mean_over_devices: see :func:`confident_pseudo_label`.
        """
        self.student = student
        self.teacher = MeanTeacher(student, ema_decay, teacher_statistics)
        self.mixing, self.area_share, self.ignore_as_class = mixing, area_share, ignore_as_class
        self.confidence, self.mean_over_devices = confidence, mean_over_devices
        self.ignore_top, self.ignore_bottom = ignore_top, ignore_bottom
        self.augmentation, self.vertical_blur = augmentation, vertical_blur
        self.metrics: Mapping[str, Tensor] = {}

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """Student and teacher."""
        return self.student, self.teacher.model

    def before_step(self, step: int) -> None:
        """Update the EMA teacher."""
        self.teacher.update(step)

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source`` and ``bridged``, from two forward passes with batch statistics of their own."""
        yield from self.student_losses(batch, self.pseudo_label(batch.target_image, batch.target_domain), generator)

    def student_losses(
        self, batch: Batch, pseudo: PseudoLabel, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        """The losses for pseudo-labels that exist already."""
        mask = self.mask(batch.source_label, generator, batch.place)
        mixed = paste(mask, batch.source_image, batch.source_label, batch.target_image, pseudo.label, pseudo.weight)
        image = self.augmented(mixed.image, generator, batch.place)
        self.metrics = {"pseudo_label_share": pseudo.share}
        yield "source", self.pixel_loss(self.student(batch.source_image).logits, batch.source_label)
        yield "bridged", self.pixel_loss(self.student(image).logits, mixed.label, mixed.weight)

    def augmented(self, image: Tensor, generator: torch.Generator, rows: Rows) -> Tensor:
        """An image for the student: with photometric augmentation, where there is one."""
        if self.augmentation is None:
            return image
        return augment(image, self.augmentation, generator, rows, vertical_blur=self.vertical_blur)

    def pseudo_label(self, target_image: Tensor, target_domain: Sequence[str] = ()) -> PseudoLabel:
        """Class and weight per pixel, from the teacher's prediction of the clean target images (see :class:`Batch`)."""
        return self.pseudo_label_of(self.teacher.logits(target_image, target_domain))

    def pseudo_label_of(self, logits: Tensor) -> PseudoLabel:
        """The same from the teacher's logits at the image's size."""
        return confident_pseudo_label(
            logits, self.confidence, self.ignore_top, self.ignore_bottom, self.mean_over_devices
        )

    def mask(self, source_label: Tensor, generator: torch.Generator, rows: Rows) -> Tensor:
        """Where the source shows: bool (batch, height, width)."""
        if self.mixing == "cut":
            return cut_mix(source_label, generator, area_share=self.area_share, rows=rows)
        return class_mix(source_label, generator, ignore_as_class=self.ignore_as_class, rows=rows)

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher, parameters and buffers."""
        return self.teacher.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the teacher back."""
        self.teacher.model.load_state_dict(state)


def confident_pseudo_label(
    logits: Tensor,
    confidence: float = CONFIDENCE,
    ignore_top: int = 0,
    ignore_bottom: int = 0,
    mean_over_devices: Callable[[Tensor], Tensor] | None = None,
) -> PseudoLabel:
    """Class per pixel; the weight of every pixel is the share of pixels with max_k p_k >= ``confidence``.

    Args:
        logits: at image size, (batch, classes, height, width).
        confidence: threshold tau.
        ignore_top: rows at the top with weight 0, e.g. a rectified border.
        ignore_bottom: rows at the bottom with weight 0, e.g. a car's hood.
        mean_over_devices: mean of a share over the devices that hold the other rows of the batch; None: each device
            keeps its own share, as published.
    """
    probability, label = logits.float().softmax(1).max(1)
    share = (probability >= confidence).float().mean()
    share = mean_over_devices(share) if mean_over_devices is not None else share
    weight = share.expand(label.shape).clone()
    weight[:, :ignore_top] = 0
    weight[:, label.shape[1] - ignore_bottom :] = 0
    return PseudoLabel(label, weight, share)


def self_training_stage(
    name: str,
    mixing: Mixing,
    config: SelfTrainingConfig,
    augmentation: AugmentationConfig,
    *,
    init: str | None,
    lr_factor: float = 1.0,
    published: bool = False,
) -> TrainingStage:
    """One path of step 1 as a stage.

    Args:
        name: of the stage.
        mixing: "cut" or "class".
        config: of the objective.
        augmentation: of mixed images.
        init: stage whose student is the start; None: initial weights.
        lr_factor: factor of ``training.learning_rate``.
        published: with the published quirks.
    """

    def objective(student: Segmenter, inputs: StageInputs) -> SelfTraining:
        return SelfTraining(student, mixing, **objective_arguments(config, augmentation, inputs, published=published))

    return TrainingStage(
        name=name,
        kind="self-training",
        inputs=(init,) if init is not None else (),
        settings=settings_of(config, augmentation),
        objective=objective,
        init=init,
        lr_factor=lr_factor,
        teacher_passes=1,
        ema_teachers=1,
    )


def objective_arguments(
    config: SelfTrainingConfig, augmentation: AugmentationConfig, inputs: StageInputs, *, published: bool
) -> dict[str, Any]:
    """Arguments of :class:`SelfTraining` beside the student and the mixing, as a recipe says."""
    return {
        **config.model_dump(exclude={"confidence_over"}),
        "augmentation": augmentation,
        "vertical_blur": not published,
        "ignore_as_class": published,
        "mean_over_devices": inputs.mean_over_devices if config.confidence_over == "all" else None,
    }


def settings_of(config: SelfTrainingConfig, augmentation: AugmentationConfig) -> dict[str, Any]:
    """What the result of such an objective depends on."""
    return {"self_training": config.model_dump(mode="json"), "augmentation": augmentation.model_dump(mode="json")}
