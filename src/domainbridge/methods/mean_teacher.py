"""The EMA teacher of step 1 (mean teacher, Tarvainen & Valpola, arXiv 1703.01780; docs/method.md, section 2)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from domainbridge.models.drop_path import dropout_off
from domainbridge.models.frozen_trunk import frozen_parts
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.upsample import upsample

__all__ = ["EMA_DECAY", "MeanTeacher", "Statistics", "TeacherStatistics"]

Statistics = Literal["batch", "student"]
TeacherStatistics = Statistics | Mapping[str, Statistics]
"""For all targets, or name of a target -> its own."""

EMA_DECAY = 0.99
"""Largest decay of the moving average, as published."""


class MeanTeacher:
    """Exponential moving average (EMA) of a student's parameters that train; buffers are not averaged, dropout is off.

    The statistics that the teacher's BatchNorm normalizes with are a choice:

    - "batch", as published: the target batch's own statistics. They adapt to a camera, to fog, to noise. A batch with
      other class proportions looks like another domain to them.
    - "student": the student's running statistics, copied at every step.
    - a mapping from each target to one of both: rows of a "batch" target have the statistics of the batch's rows of
      this target alone.
    """

    def __init__(self, student: Segmenter, decay: float = EMA_DECAY, statistics: TeacherStatistics = "batch") -> None:
        """Start as a copy of the student; ``decay`` is the largest decay, reached as the steps grow.

        What does not train in the student is not copied: both networks have the same tensors.
        """
        self.student = student
        shared: dict[int, object] = {id(part): part for part in frozen_parts(student)}
        self.model = copy.deepcopy(student, shared).requires_grad_(False)
        self.model.train(statistics == "batch")
        dropout_off(self.model)
        self.decay = decay
        self.statistics = statistics

    @torch.no_grad()
    def update(self, step: int) -> None:
        """teacher = decay * teacher + (1 - decay) * student, decay = min(1 - 1 / (step + 1), ``decay``).

        At step 0 the decay is 0: the update copies the student.
        """
        decay = min(1 - 1 / (step + 1), self.decay)
        both = zip(self.model.parameters(), self.student.parameters(), strict=True)
        averages, parameters = zip(*(pair for pair in both if pair[0] is not pair[1]), strict=True)
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, parameters, alpha=1 - decay)
        if self.statistics != "batch":
            buffers = list(zip(self.model.buffers(), self.student.buffers(), strict=True))
            # One type at a time: a GPU copies a list of several types tensor by tensor, a kernel each.
            for kind in dict.fromkeys(value.dtype for _, value in buffers):
                copies, values = zip(*(pair for pair in buffers if pair[1].dtype == kind), strict=True)
                torch._foreach_copy_(copies, values)

    @torch.no_grad()
    def output(self, image: Tensor, domains: Sequence[str] = ()) -> Segmentation:
        """The teacher's output for target images.

        Args:
            image: float32 (batch, 3, height, width) in [0, 1].
            domains: the target of each row; needed with statistics per target only.
        """
        if isinstance(self.statistics, str):
            output: Segmentation = self.model(image)
            return output
        assert len(domains) == len(image), f"{len(domains)} names of targets for {len(image)} rows"
        rows: dict[int, Segmentation] = {}
        for mode, members in _passes(self.statistics, domains):
            self.model.train(mode == "batch")
            dropout_off(self.model)
            # The whole batch stays the tensor that it is: the maps of a frozen trunk are remembered by the image.
            some = image if len(members) == len(image) else torch.cat([image[row : row + 1] for row in members])
            part = self.model(some)
            rows |= {row: Segmentation(*(each[k : k + 1] for each in part)) for k, row in enumerate(members)}
        # Slices and one concatenation: an index tensor would have to be copied to the device in every step.
        return Segmentation(*(torch.cat(part) for part in zip(*(rows[row] for row in range(len(image))), strict=True)))

    @torch.no_grad()
    def logits(self, image: Tensor, domains: Sequence[str] = ()) -> Tensor:
        """Logits at the image's size: float32 (batch, classes, height, width); arguments of :meth:`output`."""
        return upsample(self.output(image, domains).logits.float(), (image.shape[-2], image.shape[-1]))


def _passes(statistics: Mapping[str, Statistics], domains: Sequence[str]) -> list[tuple[Statistics, list[int]]]:
    """Rows that go through the network together: all "student" rows first, then those of one "batch" target each.

    A "batch" pass moves the running statistics, which the "student" rows read.
    """
    members: dict[str, list[int]] = {}
    for row, domain in enumerate(domains):
        members.setdefault("" if statistics[domain] == "student" else domain, []).append(row)
    passes: list[tuple[Statistics, list[int]]] = [("student", members.pop(""))] if "" in members else []
    return passes + [("batch", rows) for rows in members.values()]
