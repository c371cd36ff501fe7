"""Step 2: cross-path knowledge distillation, CKD (METHOD section 4).

The students of the two paths teach a new one. Near its own prototype of a class a teacher keeps more of that class's
probability, so half/half becomes an ensemble that listens to whoever is on known ground:

    d_k = || z - prototype_k ||_2,  w = softmax(-(d - min d)),  r_p = w * softmax(logits_p),  r = (r_cut + r_class) / 2
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from domainbridge.adaptation.feature_geometry import PrototypeDistances
from domainbridge.adaptation.losses import cross_entropy, soft_divergence
from domainbridge.adaptation.prototypes import PrototypeBank
from domainbridge.adaptation.self_training import Augmentation, PseudoLabel, augment
from domainbridge.models.resizing import Enlarged, row_strips
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.types import Batch

__all__ = ["Distillation", "Opinion", "Teacher"]


@dataclass(frozen=True)
class Teacher:
    """A frozen student of step 1.

    Attributes:
        model: used in evaluation mode.
        prototypes: of its own features; None for the plain mean.
    """

    model: Segmenter
    prototypes: PrototypeBank | None = None


class Opinion:
    """What a teacher said about a batch of images, read a few rows of pixels at a time."""

    def __init__(
        self, said: Segmentation, bank: PrototypeBank | None, size: tuple[int, int], *, absent_compete: bool
    ) -> None:
        """Keep what is needed, at the features' resolution.

        Args:
            said: the teacher's logits and features.
            bank: prototypes of K classes; None for no weights.
            size: (height, width) of the images.
            absent_compete: see :meth:`weights`.
        """
        self._logits = Enlarged(said.logits.float(), size)
        self._distances = PrototypeDistances(said.features, bank.vectors, size) if bank is not None else None
        self._absent = None
        if bank is not None and not absent_compete:
            # With no prototype at all, masking every class would give NaN; then all compete after all.
            self._absent = (~bank.present & bank.present.any())[:, None, None]

    def logits(self, rows: slice) -> Tensor:
        """Float32 (batch, classes, rows, width)."""
        return self._logits.rows(rows)

    def weights(self, rows: slice) -> Tensor | None:
        """How close each pixel's feature is to each prototype: softmax over classes of the negative distance.

        A class without prototype competes with the zero vector where absent classes compete, as in the published
        code; otherwise its weight is 0.

        Returns:
            float32 (batch, classes, rows, width), sums to 1 over the classes; None without prototypes.
        """
        if self._distances is None:
            return None
        nearness = self._distances.rows(rows).neg_()
        if self._absent is not None:
            nearness.masked_fill_(self._absent, -torch.inf)
        return nearness.softmax(1)


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
            absent_compete: see :meth:`Opinion.weights`.
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

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """Student and teachers."""
        return self.student, *(teacher.model for teacher in self.teachers)

    def before_step(self, step: int) -> None:
        """The teachers are frozen."""

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source`` and ``target``, from two forward passes with their own batch statistics each."""
        image = batch.target_image
        if self.augmentation is not None:
            image = augment(image, self.augmentation, generator, batch.place)
        yield "source", cross_entropy(self.student(batch.source_image).logits, batch.source_label)
        if self.mode == "soft":
            ensemble = self.mean_logits(batch.target_image)
            divergence = soft_divergence(self.student(image).logits, ensemble, self.temperature)
            yield "target", self.soft_weight * divergence
        else:
            pseudo = self.pseudo_label(batch.target_image)
            yield "target", cross_entropy(self.student(image).logits, pseudo.label, pseudo.weight)

    @torch.no_grad()
    def pseudo_label(self, image: Tensor) -> PseudoLabel:
        """The ensemble's class per pixel of the clean target image, and its weight."""
        if not self.confidence_share:
            label = torch.cat([strip.max(1).indices for strip in self._ratings(image)], 1)
            return PseudoLabel(label, torch.ones((), device=label.device))
        best = [strip.max(1) for strip in self._ratings(image)]
        label = torch.cat([strip.indices for strip in best], 1)
        share = (torch.cat([strip.values for strip in best], 1) >= self.confidence).float().mean()
        return PseudoLabel(label, share.expand(label.shape))

    @torch.no_grad()
    def mean_probabilities(self, image: Tensor) -> Tensor:
        """r, the mean of the teachers' weighted softmaxes: float32 (batch, classes, height, width)."""
        return torch.cat(list(self._ratings(image)), 2)

    @torch.no_grad()
    def mean_logits(self, image: Tensor) -> Tensor:
        """The mean of the teachers' weighted logits: float32 (batch, classes, height, width)."""
        return torch.cat(list(self._strips(image, _weighted_logits)), 2)

    def _ratings(self, image: Tensor) -> Iterator[Tensor]:
        """r, strip by strip."""
        return self._strips(image, _rating if self.weights_on == "probabilities" else _rating_by_logits)

    def _strips(self, image: Tensor, read: Callable[[Opinion, slice], Tensor]) -> Iterator[Tensor]:
        """The mean over the teachers of what is read off their opinions, from top to bottom."""
        height, width = image.shape[-2:]
        said = [teacher.model(image) for teacher in self.teachers]
        # Mixed precision would lose the difference of the large squares.
        with torch.autocast(image.device.type, enabled=False):
            opinions = [
                Opinion(words, teacher.prototypes, (height, width), absent_compete=self.absent_compete)
                for words, teacher in zip(said, self.teachers, strict=True)
            ]
            for rows in row_strips(height):
                total = read(opinions[0], rows)
                for opinion in opinions[1:]:
                    total.add_(read(opinion, rows))
                yield total.div_(len(opinions))

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: the teachers are inputs of the stage."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
        assert not state


def _weighted_logits(opinion: Opinion, rows: slice) -> Tensor:
    logits, weights = opinion.logits(rows), opinion.weights(rows)
    return logits if weights is None else logits.mul_(weights)


def _rating(opinion: Opinion, rows: slice) -> Tensor:
    """w * softmax(logits)."""
    probability, weights = opinion.logits(rows).softmax(1), opinion.weights(rows)
    return probability if weights is None else probability.mul_(weights)


def _rating_by_logits(opinion: Opinion, rows: slice) -> Tensor:
    """softmax(w * logits)."""
    return _weighted_logits(opinion, rows).softmax(1)
