"""The EMA teacher of step 1 (mean teacher, Tarvainen & Valpola, arXiv 1703.01780; docs/method.md, section 2)."""

import copy
from typing import Literal

import torch
from torch import Tensor

from domainbridge.models.drop_path import dropout_off
from domainbridge.models.frozen_trunk import frozen_parts
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.upsample import upsample

__all__ = ["EMA_DECAY", "MeanTeacher", "TeacherStatistics"]

TeacherStatistics = Literal["batch", "student"]

EMA_DECAY = 0.99
"""Largest decay of the moving average, as published."""


class MeanTeacher:
    """Exponential moving average (EMA) of a student's parameters that train; buffers are not averaged, dropout is off.

    The statistics that the teacher's BatchNorm normalizes with are a choice:

    - "batch", as published: the target batch's own statistics. They adapt to a camera, to fog, to noise. A batch with
      other class proportions looks like another domain to them.
    - "student": the student's running statistics, copied at every step.
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
        if self.statistics == "student":
            torch._foreach_copy_(list(self.model.buffers()), list(self.student.buffers()))

    @torch.no_grad()
    def logits(self, image: Tensor) -> Tensor:
        """Logits at the image's size: float32 (batch, classes, height, width)."""
        return upsample(self.model(image).logits.float(), (image.shape[-2], image.shape[-1]))
