"""What a training stage minimises, as the loop sees it; and the plainest one."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.models.segmenter import Segmenter
from domainbridge.types import Batch

__all__ = ["Objective", "SourceOnly"]


class Objective(Protocol):
    """One stage's losses. The loop goes backward from each and steps; nothing here does.

    Attributes:
        student: the network that is optimised, and what the stage keeps.
    """

    student: Segmenter

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """All that run in a step, the student first."""
        ...

    def before_step(self, step: int) -> None:
        """Called before ``losses`` of step 0, 1, ...: what must follow the step count, e.g. a moving average."""
        ...

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Named scalar losses of a batch, whose sum is minimised; every draw comes from ``generator`` (on the CPU).

        One after the other, so that the loop can go backward from each before the next forward pass: what autograd
        keeps of one pass is gone before the next one begins, which halves the memory of a step with two passes.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything beside the student that must survive a restart."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The opposite of ``state_dict``."""
        ...


class SourceOnly:
    """The baseline: cross entropy on the source, the target unseen."""

    def __init__(self, student: Segmenter) -> None:
        self.student = student

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """The student alone."""
        return (self.student,)

    def before_step(self, step: int) -> None:
        """Nothing follows the step count."""

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``source``: CE(f(image_s), label_s)."""
        yield "source", cross_entropy(self.student(batch.source_image).logits, batch.source_label)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
        assert not state
