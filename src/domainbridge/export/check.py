"""Whether an exported file does what the model folder does: on real images, of odd sizes, in batches; with speeds.

A file of a fixed size is compared on windows of this size; whole images show what its windows change.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.data.dataset import FileDataset
from domainbridge.errors import ExportError
from domainbridge.evaluation.confusion import confusion_matrix, scores
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.exported import ExportedPredictor
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.evaluation.predictor import Predictor
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.export.images import at_network, window_of

__all__ = ["CheckResult", "check", "least_equal"]

_LEAST_EQUAL = {"float32": 99.9, "float16": 99.0, "int8": 90.0}
_ROUNDS = 3
"""Each image is timed so often, in turns, and the fastest pass counts: other programs only make a pass slower."""

_SIDE = 1024
"""Pixels of the longest side on which logits are compared."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class CheckResult:
    """Figures of an exported file beside the model folder under torch in float32, on the same images.

    Attributes:
        images: how many were compared.
        largest_difference: of the logits, over all images, odd sizes and batches.
        largest_logit: largest absolute value of a logit under torch, to compare with.
        equal_pixels: percent of pixels with the same class; of a file of a fixed size, in windows of this size.
        least_equal: percent that was asked for.
        miou: of the model folder and of the exported file, in percent; None without labels.
        seconds: per image, of torch and of the exported file: the network and the class map.
        threads: of both.
        equal_whole: of a file of a fixed size, the percent in whole images, of which the model folder sees more.
        batches: whether two images at once were compared too.
    """

    images: int
    largest_difference: float
    largest_logit: float
    equal_pixels: float
    least_equal: float
    miou: tuple[float | None, float | None] | None
    seconds: tuple[float, float]
    threads: int
    equal_whole: float | None = None
    batches: bool = True

    @property
    def passed(self) -> bool:
        """Whether enough pixels are equal."""
        return self.equal_pixels >= self.least_equal

    @property
    def speed(self) -> float:
        """Seconds of torch / seconds of the exported file: 2 means twice as fast."""
        return self.seconds[0] / self.seconds[1]

    def lines(self) -> list[str]:
        """The figures as text, a line each."""
        kinds, whole, miou = "odd sizes", list[str](), list[str]()
        if self.equal_whole is not None:
            kinds = "windows of the file's size"
            whole = [f"whole images         {self.equal_whole:.3f} % equal pixels: the file sees windows or padding"]
        if self.miou is not None:
            before, after = ("none" if value is None else f"{value:.2f}" for value in self.miou)
            miou = [f"mIoU                 {after} %, of the model folder {before} %"]
        return [
            f"images               {self.images}, and {kinds}{' and a batch of two' if self.batches else ''}",
            f"largest difference   {self.largest_difference:.3g} (logits, largest {self.largest_logit:.3g})",
            f"equal pixels         {self.equal_pixels:.3f} % (at least {self.least_equal:g} % asked for)",
            *whole,
            *miou,
            f"seconds per image    {self.seconds[1]:.3f}, torch {self.seconds[0]:.3f}: {self.speed:.2f} times as fast "
            f"({self.threads} threads each)",
        ]


def least_equal(precision: str) -> float:
    """Percent of equal pixels that a file of that precision must reach."""
    return _LEAST_EQUAL[precision]


def check(
    predictor: Predictor,
    exported: ExportedPredictor,
    images: Sequence[Path],
    labeled: tuple[FileDataset, ScoringRule] | None = None,
    *,
    at_least: float,
) -> CheckResult:
    """Compare an exported file with the model folder.

    Args:
        predictor: on the CPU, float32.
        exported: the file, with as many threads.
        images: image files.
        labeled: the same images with labels, in the same order, and what is compared with what; None: no scores.
        at_least: percent of pixels that must have the same class.

    Raises:
        ExportError: an output has another shape, or values that are not numbers.
    """
    difference = highest = 0.0
    whole, windows = _Equal(), _Equal()
    seconds = np.zeros(2)
    matrices: list[torch.Tensor | int] = [0, 0]
    alike = _without_resizing(predictor, exported)
    size = exported.config.size
    for number, path in enumerate(images):
        image = predictor.read(path)
        if size is not None:
            window, (tall, wide) = window_of(predictor, at_network(predictor, image), size)
            windows.add([each.maps([window])[0].classes[:tall, :wide] for each in alike])
            batches = [[window], *([[window, window[::-1]]] if number == 0 and exported.config.batch is None else [])]
        else:
            odd = _odd_batches(image, exported.config.smallest_side) if number == 0 else []
            batches = [[image[:_SIDE, :_SIDE]], *odd]
        for batch in batches:
            largest, logit = _difference(predictor, exported, batch)
            difference, highest = max(difference, largest), max(highest, logit)
        maps, fastest = _timed(predictor, exported, image)
        seconds += fastest
        whole.add(maps)
        if labeled is not None:
            dataset, rule = labeled
            label = torch.from_numpy(dataset.load_label(number)).long()
            for place, classes in enumerate(maps):
                scored = torch.from_numpy(rule.table[classes]).long()
                matrices[place] += confusion_matrix(label, scored, len(rule.space))
    return CheckResult(
        images=len(images),
        largest_difference=difference,
        largest_logit=highest,
        equal_pixels=(whole if size is None else windows).percent,
        least_equal=at_least,
        miou=None if labeled is None else _mious(matrices, labeled[1].space.classes),
        seconds=(seconds[0] / len(images), seconds[1] / len(images)),
        threads=torch.get_num_threads(),
        equal_whole=None if size is None else whole.percent,
        batches=exported.config.batch is None,
    )


@dataclass
class _Equal:
    """Pixels with the same class in two class maps."""

    equal: int = 0
    pixels: int = 0

    def add(self, maps: Sequence[Pixels]) -> None:
        self.equal += int((maps[0] == maps[1]).sum())
        self.pixels += maps[0].size

    @property
    def percent(self) -> float:
        return 100 * self.equal / self.pixels


def _without_resizing(predictor: Predictor, exported: ExportedPredictor) -> tuple[SegmentationModel, ...]:
    """Both for images at the network's size; a file's fixed size passes the model folder in one piece, too."""
    rule = InferenceRule(window=exported.config.size, pad=predictor.rule.pad)
    return (
        Predictor(predictor.network, replace(predictor.config, resize=None), rule),
        ExportedPredictor(exported.session, replace(exported.config, resize=None)),
    )


def _mious(matrices: Sequence[torch.Tensor | int], classes: tuple[str, ...]) -> tuple[float | None, float | None]:
    before, after = (scores(torch.as_tensor(matrix), classes, 0).miou for matrix in matrices)
    return before, after


def _timed(
    predictor: Predictor, exported: ExportedPredictor, image: Pixels
) -> tuple[list[Pixels], NDArray[np.float64]]:
    """Both class maps, and the seconds of the fastest pass of each."""
    fastest = np.full(2, np.inf)
    maps: list[Pixels] = []
    both: tuple[SegmentationModel, ...] = (predictor, exported)
    for _ in range(_ROUNDS):
        maps = []
        for place, model in enumerate(both):
            start = time.perf_counter()
            maps.append(model.maps([image])[0].classes)
            fastest[place] = min(fastest[place], time.perf_counter() - start)
    return maps, fastest


def _difference(predictor: Predictor, exported: ExportedPredictor, batch: Sequence[Pixels]) -> tuple[float, float]:
    """The largest difference of the logits, and the largest logit, of images of one size."""
    with torch.inference_mode():
        expected = predictor(torch.from_numpy(exported.batch(batch))).logits.numpy()
    logits = exported.logits(batch)
    if logits.shape != expected.shape:
        raise ExportError(
            f"export: the exported file gives logits of shape {logits.shape} for images of {batch[0].shape}; the model "
            f"folder gives {expected.shape}"
        )
    if not np.isfinite(logits).all():
        raise ExportError(
            "export: the exported file gives values that are not finite numbers; float16 may be too small for this "
            "network: take --precision float32"
        )
    return float(np.abs(logits - expected).max()), float(np.abs(expected).max())


def _odd_batches(image: Pixels, smallest: int) -> list[list[Pixels]]:
    """Parts of an image in sizes that are no multiples of anything, and two of them at once."""
    height, width = image.shape[:2]
    wanted = [(height - height // 7 - 1, width - width // 5 - 3), (height // 2 + 5, width // 3 + 11)]

    def within(side: int, whole: int) -> int:
        return min(max(side, smallest), whole, _SIDE - 3)

    sizes = [(within(tall, height), within(wide, width)) for tall, wide in [*wanted, (smallest, 2 * smallest)]]
    tall, wide = sizes[1]
    return [*([image[:a, :b]] for a, b in sizes), [image[:tall, :wide], image[height - tall :, width - wide :]]]
