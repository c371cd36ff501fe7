"""Walking a model over images for the scores that need no label: one image at a time, of any number and size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from domainbridge.data.dataset import Dataset, ahead, evenly_spread
from domainbridge.errors import ModelError
from domainbridge.evaluation.confusion import confusion_matrix, scores
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.grid import image_on, label_on_grid, on_grid
from domainbridge.evaluation.label_free import (
    Calibration,
    Tally,
    average_thresholded_confidence,
    calibrated,
    confidence_bins,
    mean_agreement,
    normalized_entropy,
)
from domainbridge.evaluation.shifts import SHIFTS, TARGET_JITTER, jittered
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.prototype_distance import PrototypeDistances, class_sums
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.memory import enough_memory
from domainbridge.seeding import torch_generator
from domainbridge.types import Sample

__all__ = ["SourceFacts", "Walk"]

_ADVICE = "evaluation.label_free.images=0 leaves these scores out"


@dataclass(frozen=True)
class SourceFacts:
    """What labeled source images say about a model.

    Attributes:
        classes: labeled pixels per class, float64 (K,).
        prototypes: mean feature of the labeled pixels of each class, float32 (K, channels).
        shifts: by name of a shift: mIoU, predicted accuracy (ATC) and, with another model, agreement; in percent.
        bins: of the confidence on unchanged images.
        accuracy: on unchanged images, in percent.
    """

    classes: Tensor
    prototypes: Tensor
    shifts: dict[str, dict[str, float]]
    bins: Tensor
    accuracy: float

    def predictions(self, tally: Tally) -> dict[str, float]:
        """Predicted accuracy (ATC) of the images of a tally, and mIoU with an interval; in percent.

        The mIoU is the mean of what the shifts say of the predicted accuracy and of the agreement. No interval and no
        mIoU where all shifts have the same score; nothing without labeled pixels.
        """
        if not self.shifts:
            return {}
        accuracy = average_thresholded_confidence(self.bins, self.accuracy, tally.bins.cpu())
        target = {"atc": accuracy}
        if tally.reference.any():
            target["agreement"] = mean_agreement(tally.reference)
        lines = [line for name, value in target.items() if (line := self._line(name, value)) is not None]
        if not lines:
            return {"predicted_accuracy": accuracy}
        return {
            "predicted_accuracy": accuracy,
            "predicted_miou": sum(line.value for line in lines) / len(lines),
            "predicted_miou_low": max(min(line.value - line.error for line in lines), 0.0),
            "predicted_miou_high": min(max(line.value + line.error for line in lines), 100.0),
        }

    def _line(self, name: str, value: float) -> Calibration | None:
        points = [(facts[name], facts["miou"]) for facts in self.shifts.values() if name in facts and "miou" in facts]
        return calibrated([score for score, _ in points], [miou for _, miou in points], value)


@dataclass
class _Shifted:
    """Sums over labeled images under one shift."""

    matrix: Tensor
    bins: Tensor
    reference: Tensor


@dataclass(frozen=True)
class Walk:
    """A model, what it is compared with, and how.

    Attributes:
        model: in evaluation mode, on the runtime's device.
        reference: another model of the same classes, likewise; None without one.
        num_classes: K.
        rule: of scoring; its space is that of the mIoU.
        runtime: its processes share the images.
        seed: of the recipe.
        progress: called after every image; it may raise to stop.
    """

    model: Segmenter
    reference: Segmenter | None
    num_classes: int
    rule: ScoringRule
    runtime: Runtime
    seed: int
    progress: Callable[[], None] = lambda: None

    @torch.inference_mode()
    def over_source(self, dataset: Dataset, count: int) -> SourceFacts:
        """Facts from evenly spread labeled images.

        Raises:
            TrainingError: an image does not fit into the device's memory.
        """
        device, kinds = self.runtime.device, self.num_classes
        classes = torch.zeros(kinds, dtype=torch.float64, device=device)
        channels = self.model.head.classifier.in_channels
        sums = torch.zeros(kinds, channels, dtype=torch.float64, device=device)
        shifted = {name: self._no_image() for name in SHIFTS}
        for index, sample, image in self._images(dataset, count):
            assert sample.label is not None
            label = label_on_grid(device, sample.label)
            with enough_memory(f"label-free scores of {sample.name}", _ADVICE):
                for name, shift in SHIFTS.items():
                    changed = shift(image, torch_generator(self.seed, "label-free", "source", index, name))
                    output = self.model(changed)
                    self._add_shifted(shifted[name], output, label, changed)
                    if name == "none":
                        features, pixels = class_sums(output.features, label[None], kinds)
                        classes, sums = classes + pixels[0], sums + features[0]
            self.progress()
        for total in (classes, sums, *(part for each in shifted.values() for part in vars(each).values())):
            self.runtime.processes.all_reduce_sum(total)
        prototypes = (sums / classes.clamp_min(1)[:, None]).float()
        return self._facts(classes, prototypes, shifted, len(evenly_spread(len(dataset), count)))

    @torch.inference_mode()
    def over_target(self, dataset: Dataset, count: int, source: SourceFacts) -> Tally:
        """Sums over evenly spread images without labels.

        Raises:
            ModelError: the network gives values that are not finite numbers.
            TrainingError: an image does not fit into the device's memory.
        """
        tally = Tally.empty(self.num_classes, self.runtime.device)
        for index, sample, image in self._images(dataset, count):
            with enough_memory(f"label-free scores of {sample.name}", _ADVICE):
                self._add(tally, image, source, torch_generator(self.seed, "label-free", "target", index))
            self.progress()
        for field in fields(tally):
            self.runtime.processes.all_reduce_sum(getattr(tally, field.name))
        if not tally.entropy.isfinite():
            raise ModelError("the network gives values that are not finite numbers: its weights are damaged")
        return tally

    def _images(self, dataset: Dataset, count: int) -> Iterator[tuple[int, Sample, Tensor]]:
        """(position, sample, float32 (1, 3, height, width) on the device) of this process's share."""
        processes = self.runtime.processes
        mine = evenly_spread(len(dataset), count)[processes.rank :: processes.count]
        for index, sample in zip(mine, ahead(dataset, mine), strict=True):
            yield index, sample, image_on(self.runtime.device, sample.image)

    def _add(self, tally: Tally, image: Tensor, source: SourceFacts, generator: torch.Generator) -> None:
        output = self.model(image)
        logits = on_grid(output.logits, image)
        classes, confidence = logits.argmax(0), logits.softmax(0).amax(0)
        mirrored = self.model(image.flip(3)).logits.flip(3)
        jitter = self.model(jittered(image, generator, TARGET_JITTER)).logits
        height, width = classes.shape
        distances = PrototypeDistances(output.features, source.prototypes, (height, width)).rows(slice(0, height))
        nearest = distances[0].masked_fill((source.classes == 0)[:, None, None], torch.inf).argmin(0)
        tally.classes += torch.bincount(classes.flatten(), minlength=self.num_classes)
        tally.entropy += normalized_entropy(logits).double().sum()
        tally.confidence += confidence.double().sum()
        tally.bins += confidence_bins(confidence)
        tally.flip_consistency += (on_grid(mirrored, image).argmax(0) == classes).sum()
        tally.jitter_consistency += (on_grid(jitter, image).argmax(0) == classes).sum()
        tally.prototype_agreement += (nearest == classes).sum()
        tally.reference += self._against_reference(classes, image)

    def _against_reference(self, classes: Tensor, image: Tensor) -> Tensor:
        """Pixels by predicted class and class that the other model predicts, int64 (K, K); zero without one."""
        if self.reference is None:
            return torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=classes.device)
        others = on_grid(self.reference(image).logits, image).argmax(0)
        return confusion_matrix(classes, others, self.num_classes)[:, :-1]

    def _no_image(self) -> _Shifted:
        classes, device = len(self.rule.space), self.runtime.device
        bins = confidence_bins(torch.zeros(0, device=device))
        reference = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64, device=device)
        return _Shifted(torch.zeros(classes, classes + 1, dtype=torch.int64, device=device), bins, reference)

    def _add_shifted(self, sums: _Shifted, output: Segmentation, label: Tensor, image: Tensor) -> None:
        logits = on_grid(output.logits, image)
        classes, labeled = logits.argmax(0), label < self.num_classes
        table = torch.from_numpy(self.rule.table).long().to(classes.device)
        sums.matrix += confusion_matrix(table[label], table[classes], len(self.rule.space))
        sums.bins += confidence_bins(logits.softmax(0).amax(0)[labeled])
        sums.reference += self._against_reference(classes, image)

    def _facts(self, classes: Tensor, prototypes: Tensor, shifted: dict[str, _Shifted], images: int) -> SourceFacts:
        rule, clean = self.rule, shifted["none"]
        if not classes.any():
            return SourceFacts(classes, prototypes, {}, clean.bins.cpu(), 0.0)
        scored = {
            name: scores(each.matrix.cpu(), rule.space.classes, images, rule.exclude_classes)
            for name, each in shifted.items()
        }
        accuracy = scored["none"].accuracy or 0.0
        facts: dict[str, dict[str, float]] = {}
        for name, each in shifted.items():
            facts[name] = {"atc": average_thresholded_confidence(clean.bins.cpu(), accuracy, each.bins.cpu())}
            miou = scored[name].miou
            if miou is not None:
                facts[name]["miou"] = miou
            if self.reference is not None:
                facts[name]["agreement"] = mean_agreement(each.reference)
        return SourceFacts(classes, prototypes, facts, clean.bins.cpu(), accuracy)
