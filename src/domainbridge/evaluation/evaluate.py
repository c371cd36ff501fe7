"""Scores of a network on labeled sets: constant memory, one image at a time while the next ones are decoded.

The one scorer of a run's stages, of a recipe's validation sets and of the user's folders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.data.dataset import Dataset, ahead
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.evaluation.confusion import Scores, confusion_matrix, scores
from domainbridge.evaluation.inference import InferenceRule, predicted_classes
from domainbridge.models.segmenter import Segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.types import as_unit_float

__all__ = ["ScoringRule", "mean_miou", "score", "score_sets"]


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
) -> Scores:
    """Scores over a labeled set, its labels at stored size.

    Args:
        model: on the runtime's device; put into evaluation mode, and back.
        dataset: labeled, labels in ``rule.space``.
        rule: see there.
        runtime: its processes share the images.
        progress: called after every image; it may raise to stop.
    """
    was_training = model.training
    model.eval()
    device, processes = runtime.device, runtime.processes
    table = torch.from_numpy(rule.table).long().to(device)
    matrix = torch.zeros(len(rule.space), len(rule.space) + 1, dtype=torch.int64, device=device)
    for sample in ahead(dataset, range(processes.rank, len(dataset), processes.count)):
        assert sample.label is not None
        image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))[None].to(device)
        label = torch.from_numpy(sample.label).to(device).long()
        size = (label.shape[0], label.shape[1])
        prediction = predicted_classes(model, as_unit_float(image), size, rule.inference)
        matrix += confusion_matrix(label, table[prediction], len(rule.space))
        progress()
    model.train(was_training)
    matrix = processes.all_reduce_sum(matrix)
    return scores(matrix, rule.space.classes, len(dataset), rule.exclude_classes, rule.subsets)


def score_sets(
    model: Segmenter,
    datasets: Mapping[str, Dataset],
    rule: ScoringRule,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Scores]:
    """Scores on each of several labeled sets, by name; arguments as for :func:`score`."""
    return {name: score(model, dataset, rule, runtime, progress) for name, dataset in datasets.items()}


def mean_miou(targets: Mapping[str, Scores]) -> float | None:
    """Mean of the targets' mIoU; None when one has none."""
    values = [scored.miou for scored in targets.values()]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None
