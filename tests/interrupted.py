"""Runs that end before they are done: as if the process were killed, or after a signal."""

import os
import signal
from pathlib import Path
from typing import Any

from domainbridge.build.recipe import parse_recipe
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.run import run_recipe


class _KilledError(BaseException):
    """No handler of an ordinary exception sees this one."""


class _Killer(NullCallback):
    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def progress(self, node: Any, progress: Any) -> None:
        if (node.name, progress.step) == (self.stage, self.step):
            raise _KilledError


def run_until_killed(tree: dict[str, Any], folder: Path, stage: str, step: int) -> None:
    """Run a recipe until a stage reports a step (``training.log_every`` says which ones it reports)."""
    try:
        run_recipe(parse_recipe(tree), folder, [_Killer(stage, step)])
    except _KilledError:
        return
    raise AssertionError(f"{stage} never reported step {step}")


class StopAtStep(NullCallback):
    """SIGINT to this process after a step of a stage: the run saves its state and ends."""

    def __init__(self, stage: str, step: int) -> None:
        self.stage, self.step = stage, step

    def progress(self, node: Any, progress: Any) -> None:
        if (node.name, progress.step) == (self.stage, self.step):
            os.kill(os.getpid(), signal.SIGINT)
