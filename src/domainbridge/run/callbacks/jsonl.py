"""``STAGE/metrics.jsonl``: a line per progress report of a training stage."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from domainbridge.errors import StorageError
from domainbridge.files import write_file, write_text
from domainbridge.run.callbacks.base import NullCallback, register_callback
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.graph import Node, PlannedStage

__all__ = ["JSONLCallback", "read_metrics", "seconds_per_step"]

_FILE = "metrics.jsonl"
_DAY = 86_400
_DAMAGED = "metrics.damaged.jsonl"
"""Copy of a file with damaged lines, before they are left out."""


@register_callback("jsonl")
class JSONLCallback(NullCallback):
    """Appends each report; after a restart the lines of steps that are taken again are dropped."""

    per_stage = True
    folder: Path

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Remember the run folder."""
        self.folder = folder

    def training_begins(self, node: "Node", step: int) -> None:
        """Keep the lines of earlier steps."""
        path = self.folder / node.name / _FILE
        if None in map(_entry, _lines(path)[:-1]):  # a crash may have cut the last one short
            write_file(path.with_name(_DAMAGED), partial(shutil.copyfile, path))
        kept = [entry for entry in read_metrics(path) if entry["step"] <= step]
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def progress(self, node: "Node", progress: Progress) -> None:
        """Append a line."""
        if node.training is None:
            return
        path = self.folder / node.name / _FILE
        entry = {
            "step": progress.step,
            "losses": progress.losses,
            "lr": progress.learning_rate,
            "seconds": progress.seconds,
            "metrics": progress.metrics,
            "data_share": round(progress.data_share, 4),
        }
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a ``metrics.jsonl``; lines that are cut short or damaged are left out."""
    return [entry for line in _lines(path) if (entry := _entry(line)) is not None]


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line's content; None for a damaged line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or no UTF-8
        return None
    return entry if isinstance(entry, dict) and type(entry.get("step")) is int else None


def seconds_per_step(stage_folder: Path) -> float | None:
    """Median of the measured seconds per step; None where nothing was measured."""
    seconds = [entry.get("seconds") for entry in read_metrics(stage_folder / _FILE)]
    numbers = [float(value) for value in seconds if isinstance(value, int | float) and 0 < value < _DAY]
    return median(numbers) if numbers else None
