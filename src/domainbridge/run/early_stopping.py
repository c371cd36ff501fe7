"""``training.early_stopping``: looks at a score without labels during a stage, and the best weights so far."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from domainbridge.config.training import EarlyStoppingConfig
from domainbridge.files import write_text
from domainbridge.models.segmenter import Segmenter
from domainbridge.training.loop import Look

__all__ = ["EARLY_STOPPING", "EarlyStopping"]

EARLY_STOPPING = "early_stopping.json"
"""Name of the file in the stage's folder: the score at every look, and the step whose weights the stage kept."""


class EarlyStopping:
    """What a stage has seen so far; part of its checkpoint."""

    def __init__(self, config: EarlyStoppingConfig, student: Segmenter, steps: int, score: Callable[[], float]) -> None:
        """Begin without a look.

        Args:
            config: see there.
            student: that trains; its weights are kept.
            steps: of the stage; the last step gets a look too.
            score: the student's score now, in percent, the same in all processes.
        """
        self.config, self.student, self.steps, self.score = config, student, steps, score
        self.scores: dict[int, float] = {}
        self.best: dict[str, Tensor] = {}

    @property
    def kept(self) -> int:
        """The step with the best score; of equal ones the first."""
        return max(self.scores, key=lambda step: self.scores[step])

    @property
    def ended(self) -> int | None:
        """The step at which the stage ended early; None before that."""
        steps = list(self.scores)
        waited = len(steps) - 1 - steps.index(self.kept) if steps else 0
        return steps[-1] if waited >= self.config.patience and steps[-1] < self.steps else None

    def look(self, done: int) -> Look | None:
        """After ``done`` steps: look at the score if it is time, keep the weights if they are the best ones."""
        if done % self.config.every and done != self.steps:
            return None
        self.scores[done] = self.score()
        if self.kept == done:
            self.best = {name: value.detach().to("cpu", copy=True) for name, value in self.student.state_dict().items()}
        return Look({self.config.score: self.scores[done]}, self.ended is not None)

    def keep_best(self) -> None:
        """Give the student its best weights back."""
        self.student.load_state_dict(self.best)

    def __str__(self) -> str:
        reached = "after all steps" if self.ended is None else f"ended at step {self.ended} of {self.steps}"
        return f"{reached}, kept the weights of step {self.kept} ({self.config.score} {self.scores[self.kept]:.1f})"

    def write(self, folder: Path) -> None:
        """Write the scores into the stage's folder.

        Raises:
            StorageError: they cannot be written.
        """
        content = {"score": self.config.score, "kept_step": self.kept, "scores": self.scores}
        write_text(folder / EARLY_STOPPING, json.dumps(content, indent=1) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Scores and best weights."""
        return {"scores": self.scores, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put both back.

        Raises:
            KeyError: they are of a stage without early stopping.
        """
        self.scores, self.best = dict(state["scores"]), dict(state["best"])
