"""Scoring a network on a labelled set: constant memory, one image at a time while the next ones are decoded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.samples import Samples, ahead
from domainbridge.data.spaces import LabelSpace
from domainbridge.evaluation.confusion import Scores, confusion_matrix, scores
from domainbridge.evaluation.inference import InferenceRule, predicted_classes
from domainbridge.models.segmenter import Segmenter
from domainbridge.types import as_unit_float

__all__ = ["ScoringRule", "score"]


@dataclass(frozen=True)
class ScoringRule:
    """What is compared with what.

    Attributes:
        space: in which scores are given; labels are read in it.
        table: the network's train ids -> ids of ``space``, uint8 (256,).
        exclude: classes that the mean leaves out.
        inference: how images go through the network.
        subsets: name -> classes of a further mean.
    """

    space: LabelSpace
    table: NDArray[np.uint8]
    exclude: tuple[str, ...] = ()
    inference: InferenceRule = InferenceRule()
    subsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def score(
    model: Segmenter,
    samples: Samples,
    rule: ScoringRule,
    device: torch.device,
    *,
    share: slice = slice(None),
    total: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Scores:
    """Scores over all samples, their labels at stored size.

    Args:
        model: put into evaluation mode, and back.
        samples: labelled, labels in ``rule.space``.
        rule: see there.
        device: where the model is.
        share: which samples this process scores, when several do it together ...
        total: ... and the sum of a matrix over these processes.
        progress: called after every image; it may raise to stop.
    """
    was_training = model.training
    model.eval()
    table = torch.from_numpy(rule.table).long().to(device)
    matrix = torch.zeros(len(rule.space), len(rule.space) + 1, dtype=torch.int64, device=device)
    for sample in ahead(samples, range(len(samples))[share]):
        assert sample.label is not None
        image = torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))[None].to(device)
        label = torch.from_numpy(sample.label).to(device).long()
        size = (label.shape[0], label.shape[1])
        prediction = predicted_classes(model, as_unit_float(image), size, rule.inference)
        matrix += confusion_matrix(label, table[prediction], len(rule.space))
        progress()
    model.train(was_training)
    matrix = total(matrix) if total is not None else matrix
    return scores(matrix, rule.space.classes, len(samples), rule.exclude, rule.subsets)
