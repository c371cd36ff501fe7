"""Scores of a network on labeled sets: constant memory, a few images at a time while the next ones are decoded.

The one scorer of a run's stages, of a recipe's validation sets and of the user's folders.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.dataset import Dataset, ahead
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.evaluation.confusion import Scores, pixel_counts, scores
from domainbridge.evaluation.inference import check_finite, class_maps, images_at_once
from domainbridge.evaluation.inference_rule import InferenceRule, same_size_batches, windows_of
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import to_device
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.memory import EVALUATION_ADVICE, enough_memory
from domainbridge.types import IGNORE, Sample

__all__ = ["Compared", "ScoredImage", "ScoringRule", "compared", "mean_miou", "score", "score_sets", "scored_images"]

_PIXELS = 2**22
"""Pixels that are compared at a time."""


@dataclass(frozen=True)
class ScoringRule:
    """What is compared with what.

    Attributes:
        space: label space of the scores; labels are read in it.
        table: the network's train ids -> ids of ``space``, uint8 (256,).
        exclude_classes: classes that the mean leaves out.
        inference: how images pass the network.
        subsets: name -> classes of a further mean.
    """

    space: LabelSpace
    table: NDArray[np.uint8]
    exclude_classes: tuple[str, ...] = ()
    inference: InferenceRule = InferenceRule()
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredImage:
    """One image of a set, predicted and counted.

    Attributes:
        index: of the image in its set.
        sample: the image as the network got it, with its label if there is one.
        predicted: the network's train ids, uint8 (height, width), on the device; at the size of the label, without a
            label at the size of the image.
        counts: int64 (K + 1, K + 1), as :func:`domainbridge.evaluation.confusion.pixel_counts` gives them, in the space
            of the scores.
    """

    index: int
    sample: Sample
    predicted: Tensor
    counts: Tensor


def score(
    model: Segmenter,
    dataset: Dataset,
    rule: ScoringRule,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
    seen: Callable[[ScoredImage], None] = lambda _: None,
) -> Scores:
    """Scores over a labeled set, its labels at stored size.

    Args:
        model: on the runtime's device; put into evaluation mode, and back.
        dataset: labeled, labels in ``rule.space``.
        rule: see there.
        runtime: its processes share the images.
        progress: called after every image; it may raise to stop.
        report: gets a line if images were too large to go through the network at once.
        seen: gets every image of this process with its prediction.

    Raises:
        TrainingError: an image does not fit into the device's memory.
        ModelError: the network gives values that are not numbers.
    """
    processes, size = runtime.processes, len(rule.space) + 1
    matrix = torch.zeros(size, size, dtype=torch.int64, device=runtime.device)
    large: list[str] = []
    own_images = range(processes.rank, len(dataset), processes.count)
    with closing(scored_images(model, dataset, own_images, rule, runtime.device)) as images:
        for image in images:
            assert image.sample.label is not None
            matrix += image.counts
            large += _too_large(image.sample, rule.inference)
            seen(image)
            progress()
    if large:
        report(f"{len(large)} images are too large for the network at once and went through windows, e.g. {large[0]}")
    matrix = processes.all_reduce_sum(matrix)
    labeled, total = matrix[: len(rule.space)], int(matrix.sum())
    return scores(labeled, rule.space.classes, len(dataset), rule.exclude_classes, rule.subsets, total)


def scored_images(
    model: Segmenter, dataset: Dataset, indices: Iterable[int], rule: ScoringRule, device: torch.device
) -> Generator[ScoredImage, None, None]:
    """Predict images, with or without labels; the next ones are decoded meanwhile.

    Args:
        model: on ``device``; put into evaluation mode, and back.
        dataset: labels, if any, in ``rule.space``.
        indices: which images.
        rule: see there.
        device: the model's.

    Raises:
        TrainingError: an image does not fit into the device's memory.
        ModelError: the network gives values that are not numbers.
    """
    was_training = model.training
    model.eval()
    finite = torch.ones((), dtype=torch.bool, device=device)
    indices = list(indices)
    try:
        samples = zip(indices, ahead(dataset, indices), strict=True)
        at_once = partial(images_at_once, rule=rule.inference, device=device)
        for batch in same_size_batches(samples, lambda numbered: numbered[1].image.shape, at_once):
            images = [sample for _, sample in batch]
            with enough_memory(f"scoring {images[0].name}", EVALUATION_ADVICE):
                results = list(compared(model, images, rule, device))
            for (index, sample), result in zip(batch, results, strict=True):
                finite &= result.finite
                yield ScoredImage(index, sample, result.predicted, result.counts)
        check_finite(finite)
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class Compared:
    """One image's prediction beside its label, on the device.

    Attributes:
        counts: int64 (K + 1, K + 1), as :func:`domainbridge.evaluation.confusion.pixel_counts` gives them; without a
            label all pixels are in the last row.
        predicted: the network's train ids, uint8 (height, width).
        finite: whether the network's values are finite, bool ().
    """

    counts: Tensor
    predicted: Tensor
    finite: Tensor


def compared(model: Segmenter, batch: Sequence[Sample], rule: ScoringRule, device: torch.device) -> Iterator[Compared]:
    """Predict images of one size and count their pixels, some rows at a time; nothing waits for the device."""
    table = to_device(torch.from_numpy(rule.table).long(), device)
    shapes = [(sample.image if sample.label is None else sample.label).shape for sample in batch]
    sizes = [(shape[0], shape[1]) for shape in shapes]
    results = class_maps(model, [sample.image for sample in batch], sizes, rule.inference, device)
    for sample, (height, width), result in zip(batch, sizes, results, strict=True):
        counts = torch.zeros(len(rule.space) + 1, len(rule.space) + 1, dtype=torch.int64, device=device)
        rows = max(_PIXELS // width, 1)
        for top in range(0, height, rows):
            part = table[result.classes[top : top + rows].long()]
            if sample.label is None:
                label = torch.full_like(part, IGNORE)
            else:
                label = to_device(torch.from_numpy(sample.label[top : top + rows]), device).long()
            counts += pixel_counts(label, part, len(rule.space))
        yield Compared(counts, result.classes, result.finite)


def _too_large(sample: Sample, rule: InferenceRule) -> list[str]:
    """A description of a large image, or nothing."""
    height, width = rule.largest_size(*sample.image.shape[:2])
    windows = windows_of(height, width, rule) if rule.window is None else None
    return [f"{sample.name}: {width}x{height} pixels at the network, {windows}"] if windows else []


def score_sets(
    model: Segmenter,
    datasets: Mapping[str, Dataset],
    rule: ScoringRule,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
    seen: Callable[[str, ScoredImage], None] = lambda *_: None,
) -> dict[str, Scores]:
    """Scores on each of several labeled sets, by name; ``seen`` also gets the name, else as for :func:`score`."""
    return {
        name: score(model, dataset, rule, runtime, progress, report, partial(seen, name))
        for name, dataset in datasets.items()
    }


def mean_miou(targets: Mapping[str, Scores]) -> float | None:
    """Mean of the targets' mIoU; None when one has none."""
    values = [scored.miou for scored in targets.values()]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None
