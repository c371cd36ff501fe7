"""Step 2: cross-path knowledge distillation, CKD (METHOD section 4).

The students of the two paths teach a new one. Near its own prototype of a class a teacher keeps more of that class's
probability, so half/half becomes an ensemble that listens to whoever is on known ground:

    d_k = || z - prototype_k ||_2,  w = softmax(-(d - min d)),  r_p = w * softmax(logits_p),  r = (r_cut + r_class) / 2
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from domainbridge.adaptation.feature_geometry import prototype_distances
from domainbridge.adaptation.losses import cross_entropy, soft_divergence
from domainbridge.adaptation.prototypes import PrototypeBank
from domainbridge.adaptation.self_training import Augmentation, PseudoLabel, augment
from domainbridge.models.segmenter import Segmenter, upsample
from domainbridge.types import Batch

__all__ = ["Distillation", "Teacher", "ensemble_weights"]


@dataclass(frozen=True)
class Teacher:
    """A frozen student of step 1.

    Attributes:
        model: used in evaluation mode.
        prototypes: of its own features; None for the plain mean.
    """

    model: Segmenter
    prototypes: PrototypeBank | None = None


def ensemble_weights(features: Tensor, bank: PrototypeBank, size: tuple[int, int], *, absent_compete: bool) -> Tensor:
    """How close each pixel's feature is to each prototype: softmax over classes of the negative distance.

    Args:
        features: (batch, channels, h, w).
        bank: of K classes.
        size: (height, width) of the crop.
        absent_compete: a class without prototype competes with the zero vector, as in the published code; otherwise
            its weight is 0.

    Returns:
        float32 (batch, K, height, width), sums to 1 over the classes.
    """
    distances = prototype_distances(features, bank.vectors, size)
    if not absent_compete:
        # With no prototype at all, masking every class would give NaN; then all compete after all.
        absent = ~bank.present & bank.present.any()
        distances = distances.masked_fill(absent[:, None, None], torch.inf)
    return (-distances).softmax(1)


class Distillation:
    """The objective of step 2."""

    def __init__(
        self,
        student: Segmenter,
        teachers: tuple[Teacher, ...],
        *,
        mode: Literal["hard", "soft"] = "hard",
        weights_on: Literal["probabilities", "logits"] = "probabilities",
        confidence_share: bool = False,
        confidence: float = 0.968,
        temperature: float = 1.0,
        soft_weight: float = 0.1,
        augmentation: Augmentation | None = None,
        absent_compete: bool = False,
    ) -> None:
        """Defaults are the published values; ``absent_compete`` is a published quirk.

        Args:
            student: the network.
            teachers: two in the published method.
            mode: "hard" uses the ensemble's class, "soft" its whole distribution.
            weights_on: what the prototypes' weights multiply; "soft" always uses the logits.
            confidence_share: weight the hard target loss by the share of confident pixels. Weighted
                probabilities rarely reach the published 0.968: then the target loss is 0.
            confidence: its threshold.
            temperature: of "soft".
            soft_weight: factor of the soft loss.
            augmentation: of the student's target image; None for none.
            absent_compete: see :func:`ensemble_weights`.
        """
        self.student = student
        self.teachers = teachers
        for teacher in teachers:
            teacher.model.requires_grad_(False).eval()
        self.mode = mode
        self.weights_on = weights_on
        self.confidence_share, self.confidence = confidence_share, confidence
        self.temperature, self.soft_weight = temperature, soft_weight
        self.augmentation = augmentation
        self.absent_compete = absent_compete

    def before_step(self, step: int) -> None:
        """The teachers are frozen."""

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """``source`` and ``target``, from two forward passes with their own batch statistics each."""
        image = batch.target_image
        if self.augmentation is not None:
            image = augment(image, self.augmentation, generator, batch.place)
        source = cross_entropy(self.student(batch.source_image).logits, batch.source_label)
        student_logits = self.student(image).logits
        if self.mode == "soft":
            ensemble = self.mean_logits(batch.target_image)
            divergence = soft_divergence(student_logits, ensemble, self.temperature)
            return {"source": source, "target": self.soft_weight * divergence}
        pseudo = self.pseudo_label(batch.target_image)
        return {"source": source, "target": cross_entropy(student_logits, pseudo.label, pseudo.weight)}

    def pseudo_label(self, image: Tensor) -> PseudoLabel:
        """The ensemble's class per pixel of the clean target image, and its weight."""
        ratings = self.mean_probabilities(image)
        if self.confidence_share:
            rating, label = ratings.max(1)
            share = (rating >= self.confidence).float().mean()
            return PseudoLabel(label, share.expand(label.shape))
        label = ratings.argmax(1)
        return PseudoLabel(label, torch.ones((), device=label.device))

    @torch.no_grad()
    def mean_probabilities(self, image: Tensor) -> Tensor:
        """r, the mean of the teachers' weighted softmaxes: float32 (batch, classes, height, width)."""
        total = torch.zeros((), device=image.device)
        for teacher in self.teachers:
            logits, weights = self._opinion(teacher, image)
            if weights is None:
                total = total + logits.softmax(1)
            elif self.weights_on == "probabilities":
                total = total + weights * logits.softmax(1)
            else:
                total = total + (weights * logits).softmax(1)
        return total / len(self.teachers)

    @torch.no_grad()
    def mean_logits(self, image: Tensor) -> Tensor:
        """The mean of the teachers' weighted logits: float32 (batch, classes, height, width)."""
        total = torch.zeros((), device=image.device)
        for teacher in self.teachers:
            logits, weights = self._opinion(teacher, image)
            total = total + (logits if weights is None else weights * logits)
        return total / len(self.teachers)

    def _opinion(self, teacher: Teacher, image: Tensor) -> tuple[Tensor, Tensor | None]:
        size = (image.shape[-2], image.shape[-1])
        logits, features = teacher.model(image)
        weights = None
        if teacher.prototypes is not None:
            weights = ensemble_weights(features, teacher.prototypes, size, absent_compete=self.absent_compete)
        return upsample(logits.float(), size), weights

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: the teachers are inputs of the stage."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
        assert not state
