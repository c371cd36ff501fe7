"""The state of a half-done stage in its folder: ``state.pt``, and ``started.json`` that says which stage it is of."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from domainbridge.errors import RunFolderError
from domainbridge.files import write_text
from domainbridge.methods.base import Objective
from domainbridge.run.early_stopping import EarlyStopping
from domainbridge.run.graph import Node
from domainbridge.run.stage_files import CHECKPOINT, STARTED
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.distributed import Processes
from domainbridge.training.amp import LossScale
from domainbridge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

__all__ = ["StageCheckpoint", "identity", "load_own_checkpoint", "mark_started"]


class StageCheckpoint:
    """The state of a half-done training stage in its folder."""

    def __init__(
        self,
        node: Node,
        folder: Path,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scale: LossScale | None,
        runtime: Runtime,
        early_stopping: EarlyStopping | None = None,
    ) -> None:
        self.node, self.folder, self.processes = node, folder, runtime.processes
        self.student = objective.student
        self.objective, self.optimizer, self.scale = objective, optimizer, scale
        self.early_stopping = early_stopping
        self.earlier_seconds = 0.0
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Spent on the stage so far, in all starts."""
        return self.earlier_seconds + time.perf_counter() - self.began

    def restore(self) -> int:
        """Load the checkpoint if there is one; the next step to take."""
        state = load_own_checkpoint(self.folder, self.node, self.processes)
        if state is None:
            return 0
        try:
            self.student.load_state_dict(state.student)
            self.objective.load_state_dict(state.objective)
            self.optimizer.load_state_dict(state.optimizer)
            if self.scale is not None:
                self.scale.load_state_dict(state.scale)
            if self.early_stopping is not None:
                self.early_stopping.load_state_dict(state.early_stopping)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(
                f"{self.folder / CHECKPOINT}: does not fit stage {self.node.name}, of another version? ({error}) "
                "Delete it to start the stage again"
            ) from error
        self.earlier_seconds = state.seconds
        return state.step

    def save(self, step: int) -> None:
        """Write the state after ``step`` steps; only the main process does."""
        if not self.processes.is_main:
            return
        parts = (self.student.state_dict(), self.objective.state_dict(), self.optimizer.state_dict())
        scale = self.scale.state_dict() if self.scale else {}
        early_stopping = self.early_stopping.state_dict() if self.early_stopping else {}
        state = Checkpoint(step, self.node.fingerprint, *parts, self.seconds(), scale, early_stopping)
        save_checkpoint(self.folder / CHECKPOINT, state)
        mark_started(self.folder, self.node, step)


def mark_started(folder: Path, node: Node, step: int) -> None:
    """Say in the stage's folder that ``step`` steps are saved."""
    write_text(folder / STARTED, json.dumps({**identity(node), "step": step}))


def identity(node: Node) -> dict[str, Any]:
    """What must be the same for a stage to be skipped or resumed; of pretrained files, those that are known."""
    pretrained = {"pretrained": dict(node.pretrained)} if node.pretrained else {}
    return {"fingerprint": node.fingerprint, "values": node.values, **pretrained}


def load_own_checkpoint(folder: Path, node: Node, processes: Processes) -> Checkpoint | None:
    """The checkpoint in a stage's folder, if there is one.

    Raises:
        RunFolderError: damaged, or of another configuration.
    """
    path = folder / CHECKPOINT
    if not processes.broadcast(path.exists()):
        return None
    state = load_checkpoint(path)
    if state.fingerprint != node.fingerprint:
        raise RunFolderError(f"{path}: belongs to another configuration of {node.name}; delete it to start again")
    return state
