"""Step 2: cross-path knowledge distillation, CKD (docs/method.md, section 4).

The two students of step 1 are the frozen teachers of a new student. For path p with pixel feature z and prototypes c_k:

    d_k = || z - c_k ||_2,   w = softmax(-d),   r_p = w * softmax(logits_p),   r = mean(r_p)

A teacher whose feature lies near its own prototype of the predicted class keeps more of that class's probability. The
formulas stand in :func:`prototype_weights` and :func:`rectified_ensemble`; the objective computes the same numbers a
few rows of pixels at a time (``ops/prototype_distance.py``), and a test compares the two.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Probability, Section
from domainbridge.config.sections import NetworkConfig
from domainbridge.methods.base import PrototypeStage, StageInputs
from domainbridge.methods.prototypes import PrototypeBank, PrototypesConfig
from domainbridge.methods.self_training import CONFIDENCE, PseudoLabel
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.losses import PixelLoss, soft_divergence
from domainbridge.ops.photometric import AugmentationConfig, augment
from domainbridge.ops.prototype_distance import PrototypeDistances
from domainbridge.ops.upsample import LazyUpsample, row_chunks
from domainbridge.types import Batch

__all__ = [
    "Distillation",
    "DistillationConfig",
    "EnsembleConfig",
    "Teacher",
    "TeacherOutput",
    "prototype_stage",
    "prototype_weights",
    "rectified_ensemble",
    "teachers_of",
]

SOFT_WEIGHT = 0.1
"""Published factor of the soft loss."""


class EnsembleConfig(Section):
    """Step 2: cross-path knowledge distillation."""

    mode: Literal["hard", "soft"] = Field(
        "hard", description="hard: pseudo-labels of the ensemble; soft: its whole distribution"
    )
    prototypes: bool = Field(True, description="false: the plain mean of the two teachers")
    rectify: Literal["probabilities", "logits"] = Field(
        "probabilities", description="quantity that the prototype weights multiply; soft: always logits"
    )
    weight_by_confidence: bool = Field(False, description="weight of the target loss: the share of confident pixels")
    confidence: Probability = Field(CONFIDENCE, description="threshold of a confident pixel")
    temperature: float = Field(1.0, gt=0, le=1e6, description="temperature T of soft distillation")
    soft_weight: float = Field(SOFT_WEIGHT, gt=0, le=1e6, description="factor of the soft loss")
    distort_source: bool = Field(True, description="photometric distortion of the source image")


class DistillationConfig(EnsembleConfig):
    """Step 2: cross-path knowledge distillation."""

    student: NetworkConfig | None = Field(
        None,
        description="network of the last round's student, with the keys of `model`, e.g. {backbone: NAME, weights: "
        "imagenet}: a small one to ship; keys left out are those of `model`; begins with its weights, also with "
        "warm_start; default: the same network",
    )


def prototype_weights(features: Tensor, bank: PrototypeBank, *, use_missing_prototypes: bool = False) -> Tensor:
    """w = softmax(-d), d_k = || z - c_k ||_2, for features at pixel resolution; the readable formula.

    Args:
        features: z, (batch, channels, height, width).
        bank: prototypes c of K classes.
        use_missing_prototypes: whether a class without a prototype takes part with the zero vector, as in the published
            code; otherwise its weight is 0.

    Returns:
        (batch, classes, height, width), sums to 1 over the classes.
    """
    difference = features[:, None] - bank.vectors[None, :, :, None, None]
    distance = torch.linalg.vector_norm(difference, dim=2)
    if not use_missing_prototypes:
        distance = distance.masked_fill(bank.missing[:, None, None], torch.inf)
    return torch.softmax(-distance, 1)


def rectified_ensemble(logits: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """r = mean(w * softmax(logits)) over the teachers; not renormalized; the readable formula.

    Args:
        logits: per teacher, at pixel resolution (batch, classes, height, width).
        weights: per teacher, as :func:`prototype_weights` gives them.
    """
    return torch.stack([w * p.softmax(1) for p, w in zip(logits, weights, strict=True)]).mean(0)


@dataclass(frozen=True)
class Teacher:
    """A frozen student of step 1.

    Attributes:
        model: used in evaluation mode.
        prototypes: of its own features; None for the plain mean.
    """

    model: Segmenter
    prototypes: PrototypeBank | None = None


def teachers_of(inputs: StageInputs, models: Iterable[str], prototypes: str | None) -> tuple[Teacher, ...]:
    """Finished models of earlier stages as teachers.

    Args:
        inputs: results of earlier stages.
        models: the stages of the models.
        prototypes: the stage that collected the models' prototypes; None: no prototypes.
    """
    return tuple(
        Teacher(inputs.model(model), None if prototypes is None else inputs.prototypes(prototypes, model))
        for model in models
    )


def prototype_stage(name: str, models: tuple[str, ...], config: PrototypesConfig) -> PrototypeStage:
    """The stage that collects the prototypes of a distillation's teachers; ``models``: their stages."""
    settings = {"prototypes": config.model_dump(mode="json")}
    return PrototypeStage(
        name=name, kind="prototypes", inputs=models, students=models, config=config, settings=settings
    )


class TeacherOutput:
    """A teacher's output for a batch of images, read a few rows of pixels at a time."""

    def __init__(
        self,
        output: Segmentation,
        bank: PrototypeBank | None,
        size: tuple[int, int],
        *,
        use_missing_prototypes: bool = False,
    ) -> None:
        """Keep everything at the features' resolution.

        Args:
            output: the teacher's logits and features.
            bank: prototypes of K classes; None for no weights.
            size: (height, width) of the images.
            use_missing_prototypes: see :func:`prototype_weights`.
        """
        self._logits = LazyUpsample(output.logits.float(), size)
        self._distances = PrototypeDistances(output.features, bank.vectors, size) if bank is not None else None
        self._missing = bank.missing[:, None, None] if bank is not None and not use_missing_prototypes else None

    def logits(self, rows: slice) -> Tensor:
        """Float32 (batch, classes, rows, width)."""
        return self._logits.rows(rows)

    def weights(self, rows: slice) -> Tensor | None:
        """w = softmax(-d) of some rows: float32 (batch, classes, rows, width); None without prototypes."""
        if self._distances is None:
            return None
        similarity = self._distances.rows(rows).neg_()
        if self._missing is not None:
            similarity.masked_fill_(self._missing, -torch.inf)
        return similarity.softmax(1)

    def rectified_probabilities(self, rows: slice) -> Tensor:
        """w * softmax(logits) of some rows: float32 (batch, classes, rows, width)."""
        probability, weights = self.logits(rows).softmax(1), self.weights(rows)
        return probability if weights is None else probability.mul_(weights)

    def weighted_logits(self, rows: slice) -> Tensor:
        """w * logits of some rows: float32 (batch, classes, rows, width)."""
        logits, weights = self.logits(rows), self.weights(rows)
        return logits if weights is None else logits.mul_(weights)


class Distillation:
    """The objective of step 2."""

    num_losses = 2
    pixel_loss = PixelLoss()

    def __init__(
        self,
        student: Segmenter,
        teachers: tuple[Teacher, ...],
        *,
        mode: Literal["hard", "soft"] = "hard",
        rectify: Literal["probabilities", "logits"] = "probabilities",
        weight_by_confidence: bool = False,
        confidence: float = CONFIDENCE,
        temperature: float = 1.0,
        soft_weight: float = SOFT_WEIGHT,
        augmentation: AugmentationConfig | None = None,
        vertical_blur: bool = True,
        use_missing_prototypes: bool = False,
    ) -> None:
        """Defaults are the published values, without the published quirks.

        Args:
            student: the network.
            teachers: two in the published method.
            mode: "hard" uses the ensemble's class, "soft" its whole distribution.
            rectify: quantity that the prototype weights multiply; "soft" always uses the logits.
            weight_by_confidence: the share of confident pixels weights the hard target loss. Rectified probabilities
                rarely reach the published threshold: then the target loss is 0.
            confidence: threshold of a confident pixel.
            temperature: T of "soft".
            soft_weight: factor of the soft loss.
            augmentation: of the student's target image; None for none.
            vertical_blur: False is a published quirk, see :func:`domainbridge.ops.photometric.blur`.
            use_missing_prototypes: True is a published quirk, see :func:`prototype_weights`.
        """
        self.student = student
        self.teachers = teachers
        for teacher in teachers:
            teacher.model.requires_grad_(False).eval()
        self.mode, self.rectify = mode, rectify
        self.weight_by_confidence, self.confidence = weight_by_confidence, confidence
        self.temperature, self.soft_weight = temperature, soft_weight
        self.augmentation, self.vertical_blur = augmentation, vertical_blur
        self.use_missing_prototypes = use_missing_prototypes
        self.metrics: Mapping[str, Tensor] = {}

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """Student and teachers."""
        return self.student, *(teacher.model for teacher in self.teachers)

    def before_step(self, step: int) -> None:
        """The teachers are frozen."""

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source`` and ``target``, from two forward passes with batch statistics of their own."""
        image = self.student_image(batch, generator)
        yield "source", self.pixel_loss(self.student(batch.source_image).logits, batch.source_label)
        yield "target", self.target_loss(image, batch.target_image)

    def target_loss(self, image: Tensor, clean: Tensor) -> Tensor:
        """Of the student's ``image``, against what the teachers say of the ``clean`` one."""
        if self.mode == "soft":
            ensemble = self.mean_logits(clean)
            return self.soft_weight * soft_divergence(self.student(image).logits, ensemble, self.temperature)
        pseudo = self.pseudo_label(clean)
        self.metrics = {"pseudo_label_share": pseudo.share} if self.weight_by_confidence else {}
        return self.pixel_loss(self.student(image).logits, pseudo.label, pseudo.weight)

    def student_image(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The student's target image: augmented; the teachers see the clean one."""
        if self.augmentation is None:
            return batch.target_image
        return augment(batch.target_image, self.augmentation, generator, batch.place, vertical_blur=self.vertical_blur)

    @torch.no_grad()
    def pseudo_label(self, image: Tensor) -> PseudoLabel:
        """argmax_k r_k of the clean target image, with weight 1, or the share of confident pixels."""
        largest = [chunk.max(1) for chunk in self._ensemble_chunks(image)]
        label = torch.cat([chunk.indices for chunk in largest], 1)
        if not self.weight_by_confidence:
            one = torch.ones((), device=label.device)
            return PseudoLabel(label, one, one)
        share = (torch.cat([chunk.values for chunk in largest], 1) >= self.confidence).float().mean()
        return PseudoLabel(label, share.expand(label.shape), share)

    @torch.no_grad()
    def ensemble_probabilities(self, image: Tensor) -> Tensor:
        """r, the mean of the teachers' rectified probabilities: float32 (batch, classes, height, width)."""
        return torch.cat(list(self._ensemble_chunks(image)), 2)

    @torch.no_grad()
    def mean_logits(self, image: Tensor) -> Tensor:
        """The mean of the teachers' weighted logits: float32 (batch, classes, height, width)."""
        return torch.cat(list(self._mean_chunks(image, TeacherOutput.weighted_logits)), 2)

    def teacher_outputs(self, image: Tensor) -> list[tuple[Segmentation, PrototypeBank | None]]:
        """What each teacher says of the clean image, with the teacher's prototypes."""
        return [(teacher.model(image), teacher.prototypes) for teacher in self.teachers]

    def _ensemble_chunks(self, image: Tensor) -> Iterator[Tensor]:
        """r, a few rows at a time."""
        if self.rectify == "probabilities":
            return self._mean_chunks(image, TeacherOutput.rectified_probabilities)
        return self._mean_chunks(image, lambda output, rows: output.weighted_logits(rows).softmax(1))

    def _mean_chunks(self, image: Tensor, read: Callable[[TeacherOutput, slice], Tensor]) -> Iterator[Tensor]:
        """The mean over the teachers of a quantity, a few rows at a time from top to bottom."""
        height, width = image.shape[-2:]
        outputs = self.teacher_outputs(image)
        # Mixed precision would lose the difference of the large squares.
        with torch.autocast(image.device.type, enabled=False):
            readers = [
                TeacherOutput(output, bank, (height, width), use_missing_prototypes=self.use_missing_prototypes)
                for output, bank in outputs
            ]
            for rows in row_chunks(height):
                mean = read(readers[0], rows)
                for reader in readers[1:]:
                    mean.add_(read(reader, rows))
                yield mean.div_(len(readers))

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: the teachers are inputs of the stage."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
        assert not state
