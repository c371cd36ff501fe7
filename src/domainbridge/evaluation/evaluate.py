"""Scores of a network on labeled sets: constant memory, a few images at a time while the next ones are decoded.

The one scorer of a run's stages, of a recipe's validation sets and of the user's folders.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.dataset import Dataset, ahead
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.evaluation.confusion import Scores, confusion_matrix, scores
from domainbridge.evaluation.inference import (
    InferenceRule,
    check_finite,
    class_maps,
    images_at_once,
    same_size_batches,
    windows_of,
)
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import to_device
from domainbridge.runtime.device import EVALUATION_ADVICE, Runtime, enough_memory
from domainbridge.types import Sample

__all__ = ["ScoringRule", "compared", "mean_miou", "score", "score_sets"]

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


def score(
    model: Segmenter,
    dataset: Dataset,
    rule: ScoringRule,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
) -> Scores:
    """Scores over a labeled set, its labels at stored size.

    Args:
        model: on the runtime's device; put into evaluation mode, and back.
        dataset: labeled, labels in ``rule.space``.
        rule: see there.
        runtime: its processes share the images.
        progress: called after every image; it may raise to stop.
        report: gets a line if images were too large to go through the network at once.

    Raises:
        TrainingError: an image does not fit into the device's memory.
        ModelError: the network gives values that are not numbers.
    """
    was_training = model.training
    model.eval()
    processes = runtime.processes
    matrix = torch.zeros(len(rule.space), len(rule.space) + 1, dtype=torch.int64, device=runtime.device)
    pixels = torch.zeros((), dtype=torch.int64, device=runtime.device)
    large: list[str] = []
    finite = torch.ones((), dtype=torch.bool, device=runtime.device)
    try:
        samples = ahead(dataset, range(processes.rank, len(dataset), processes.count))
        at_once = partial(images_at_once, rule=rule.inference, device=runtime.device)
        for batch in same_size_batches(samples, lambda sample: sample.image.shape, at_once):
            with enough_memory(f"scoring {batch[0].name}", EVALUATION_ADVICE):
                for counts, numbers in compared(model, batch, rule, runtime.device):
                    matrix += counts
                    finite &= numbers
            for sample in batch:
                pixels += _label(sample).size
                large += _too_large(sample, rule.inference)
                progress()
        check_finite(finite)
    finally:
        model.train(was_training)
    if large:
        report(f"{len(large)} images are too large for the network at once and went through windows, e.g. {large[0]}")
    total = int(processes.all_reduce_sum(pixels))
    matrix = processes.all_reduce_sum(matrix)
    return scores(matrix, rule.space.classes, len(dataset), rule.exclude_classes, rule.subsets, total)


def compared(
    model: Segmenter, batch: Sequence[Sample], rule: ScoringRule, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """The confusion matrix of each image, int64 (K, K + 1), counted some rows at a time; whether all is finite."""
    table = to_device(torch.from_numpy(rule.table).long(), device)
    sizes = [(label.shape[0], label.shape[1]) for label in map(_label, batch)]
    results = class_maps(model, [sample.image for sample in batch], sizes, rule.inference, device)
    for sample, (height, width), result in zip(batch, sizes, results, strict=True):
        matrix = torch.zeros(len(rule.space), len(rule.space) + 1, dtype=torch.int64, device=device)
        rows = max(_PIXELS // width, 1)
        for top in range(0, height, rows):
            label = to_device(torch.from_numpy(_label(sample)[top : top + rows]), device).long()
            matrix += confusion_matrix(label, table[result.classes[top : top + rows].long()], len(rule.space))
        yield matrix, result.finite


def _label(sample: Sample) -> NDArray[np.uint8]:
    assert sample.label is not None
    return sample.label


def _too_large(sample: Sample, rule: InferenceRule) -> list[str]:
    """A description of a large image, or nothing."""
    height, width = sample.image.shape[:2]
    windows = windows_of(height, width, rule) if rule.window is None else None
    return [f"{sample.name}: {width}x{height} pixels at the network, {windows}"] if windows else []


def score_sets(
    model: Segmenter,
    datasets: Mapping[str, Dataset],
    rule: ScoringRule,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Scores]:
    """Scores on each of several labeled sets, by name; arguments as for :func:`score`."""
    return {name: score(model, dataset, rule, runtime, progress, report) for name, dataset in datasets.items()}


def mean_miou(targets: Mapping[str, Scores]) -> float | None:
    """Mean of the targets' mIoU; None when one has none."""
    values = [scored.miou for scored in targets.values()]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None
