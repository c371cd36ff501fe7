"""Step 1: self-training on bridged images, along one of the two paths (METHOD sections 1 and 2).

    loss = CE(f(image_s), label_s) + CE(f(image_b), label_b; weight_b)

The pseudo-label of a target pixel is the teacher's class for the clean target image; its weight is the share of
confident pixels in the whole batch. The teacher is a moving average of the student.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.bridging.masks import (
    class_masks,
    cut_masks,
    draw_class_scores,
    draw_rectangles,
)
from domainbridge.bridging.mix import Bridged, bridge
from domainbridge.bridging.photometric import blur, draw_blur, draw_jitter, jitter
from domainbridge.models.segmenter import Segmenter, upsample
from domainbridge.types import Batch, Rows

__all__ = ["Augmentation", "MeanTeacher", "PseudoLabel", "SelfTraining", "augment", "confident_pseudo_label"]


Statistics = Literal["batch", "student"]


class PseudoLabel(NamedTuple):
    """A target batch as the teacher sees it.

    Attributes:
        label: int64 (batch, height, width).
        weight: float32 (batch, height, width).
    """

    label: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Photometric augmentation of the images that a target loss is computed on; see the recipe's keys."""

    jitter: float = 0.2
    jitter_probability: float = 0.8
    blur_sigma: tuple[float, float] = (0.15, 1.15)
    blur_probability: float = 0.5
    vertical_blur: bool = True


def augment(image: Tensor, how: Augmentation, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Jitter, then blur, each drawn per sample; image float32 (batch, 3, height, width) in [0, 1].

    Computed in float32 also where the forward passes are not: the colours are data, and CUDA's autocast lets no operation
    write the half-precision result of a convolution into a float32 image.
    """
    rows = rows or Rows.whole(len(image))
    with torch.autocast(image.device.type, enabled=False):
        jittered = jitter(image, rows.of(draw_jitter(rows.total, how.jitter, how.jitter_probability, generator)))
        draws = rows.of(draw_blur(rows.total, how.blur_sigma, how.blur_probability, generator))
        return blur(jittered, draws, vertical=how.vertical_blur)


def confident_pseudo_label(
    logits: Tensor,
    confidence: float,
    ignore_top: int = 0,
    ignore_bottom: int = 0,
    over_devices: Callable[[Tensor], Tensor] | None = None,
) -> PseudoLabel:
    """Class per pixel, all weighted by the share of pixels whose largest probability reaches ``confidence``.

    Args:
        logits: at image size, (batch, classes, height, width).
        confidence: tau, 0.968 as published.
        ignore_top: rows whose weight is 0, e.g. a car's bonnet at the bottom or a rectified border at the top.
        ignore_bottom: likewise.
        over_devices: mean of a share over the devices that have the other rows of the batch; None: each device
            keeps its own, as published.
    """
    probability, label = logits.float().softmax(1).max(1)
    share = (probability >= confidence).float().mean()
    share = over_devices(share) if over_devices is not None else share
    weight = share.expand(label.shape).clone()
    weight[:, :ignore_top] = 0
    weight[:, label.shape[1] - ignore_bottom :] = 0
    return PseudoLabel(label, weight)


class MeanTeacher:
    """Exponential moving average of a student's parameters (Tarvainen & Valpola, arXiv 1703.01780).

    Only parameters are averaged; dropout is off. What BatchNorm normalises with is a choice:

    - "batch", as published: the target batch's own statistics. They adapt to a camera, to fog, to noise, but they
      also take a batch with other class proportions for another domain.
    - "student": the student's running statistics, copied at every step.
    """

    def __init__(self, student: Segmenter, decay: float, statistics: Statistics = "batch") -> None:
        """``decay`` is the largest one; it grows from 0 with the steps."""
        self.student = student
        self.model = copy.deepcopy(student).requires_grad_(False)
        self.model.train(statistics == "batch")
        for module in self.model.modules():
            if isinstance(module, nn.Dropout2d):
                module.eval()
        self.decay = decay
        self.statistics = statistics

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Decay min(1 - 1/(step + 1), decay): at step 0 this copies the student."""
        decay = min(1 - 1 / (step + 1), self.decay)
        averages: list[Tensor] = list(self.model.parameters())
        parameters: list[Tensor] = list(self.student.parameters())
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, parameters, alpha=1 - decay)
        if self.statistics == "student":
            torch._foreach_copy_(list(self.model.buffers()), list(self.student.buffers()))

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Logits at the image's size."""
        return upsample(self.model(image).logits.float(), (image.shape[-2], image.shape[-1]))


class SelfTraining:
    """The objective of one path."""

    def __init__(
        self,
        student: Segmenter,
        path: Literal["cut", "class"],
        *,
        area_share: float = 0.4,
        confidence: float = 0.968,
        ema_decay: float = 0.99,
        teacher_statistics: Statistics = "batch",
        ignore_top: int = 0,
        ignore_bottom: int = 0,
        augmentation: Augmentation | None = None,
        ignore_counts_as_class: bool = False,
        over_devices: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Defaults are the published values; ``ignore_counts_as_class`` is a published quirk.

        Args:
            student: the network.
            path: "cut" pastes a rectangle, "class" the pixels of half of the classes.
            area_share: the rectangle's.
            confidence: threshold of a confident pixel.
            ema_decay: the teacher's.
            teacher_statistics: see :class:`MeanTeacher`.
            ignore_top: rows of the crop whose pseudo-labels weigh nothing.
            ignore_bottom: likewise.
            augmentation: of the bridged image; None for none.
            ignore_counts_as_class: 255 may be drawn as one of the classes.
            over_devices: see :func:`confident_pseudo_label`.
        """
        self.student = student
        self.teacher = MeanTeacher(student, ema_decay, teacher_statistics)
        self.path = path
        self.area_share = area_share
        self.confidence = confidence
        self.ignore_top, self.ignore_bottom = ignore_top, ignore_bottom
        self.augmentation = augmentation
        self.ignore_counts_as_class = ignore_counts_as_class
        self.over_devices = over_devices

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """Student and teacher."""
        return self.student, self.teacher.model

    def before_step(self, step: int) -> None:
        """Update the teacher."""
        self.teacher.update(step)

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source`` and ``bridged``, from two forward passes with their own batch statistics each."""
        pseudo = self.pseudo_label(batch.target_image)
        bridged = self.bridge(batch, self.mask(batch.source_label, generator, batch.place), pseudo)
        image = bridged.image
        if self.augmentation is not None:
            image = augment(image, self.augmentation, generator, batch.place)
        yield "source", cross_entropy(self.student(batch.source_image).logits, batch.source_label)
        yield "bridged", cross_entropy(self.student(image).logits, bridged.label, bridged.weight)

    def pseudo_label(self, target_image: Tensor) -> PseudoLabel:
        """The teacher's opinion of the clean target image."""
        logits = self.teacher.logits(target_image)
        return confident_pseudo_label(logits, self.confidence, self.ignore_top, self.ignore_bottom, self.over_devices)

    def mask(self, source_label: Tensor, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
        """Where the source shows: bool (batch, height, width)."""
        batch, height, width = source_label.shape
        rows = rows or Rows.whole(batch)
        if self.path == "cut":
            rectangles = rows.of(draw_rectangles(rows.total, (height, width), self.area_share, generator))
            return cut_masks(rectangles.to(source_label.device, non_blocking=True), (height, width))
        scores = rows.of(draw_class_scores(rows.total, generator)).to(source_label.device, non_blocking=True)
        return class_masks(source_label, scores, ignore_counts=self.ignore_counts_as_class)

    @staticmethod
    def bridge(batch: Batch, mask: Tensor, pseudo: PseudoLabel) -> Bridged:
        """Paste the source onto the target."""
        return bridge(mask, batch.source_image, batch.source_label, batch.target_image, pseudo.label, pseudo.weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The teacher, parameters and buffers."""
        return self.teacher.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put the teacher back."""
        self.teacher.model.load_state_dict(state)
