"""A run in a terminal: one progress bar per stage, scores, and where the results are; on stderr."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import mean_miou
from domainbridge.printable import printable
from domainbridge.run.callbacks.base import NullCallback, register_callback
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results

__all__ = ["ConsoleCallback"]

_SLOW_DATA = 0.25
"""Share of a step's seconds from which on the wait for data is told."""
_ACTIONS = {"done": "done already", "resume": "resuming", "run": "running"}


@register_callback("console")
class ConsoleCallback(NullCallback):
    """Draws a progress bar per stage; without a terminal it prints a line per report."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        # Reports may be minutes apart: the time left needs a memory longer than rich's 30 s.
        self.bars = Bars(*columns, console=self.console, speed_estimate_period=3600)
        self.task: TaskID | None = None
        self.folder = Path()

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Start drawing."""
        self.folder = folder
        self.bars.start()

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(printable(text), highlight=False, markup=False)

    def stage_begins(self, planned: "PlannedStage") -> None:
        """Say what happens to the stage."""
        self.message(f"{planned.name}: {_ACTIONS[planned.status.action]} ({planned.status.reason})")
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
        if planned.open:
            self.task = self.bars.add_task(escape(printable(planned.name)), total=planned.node.steps, text="")

    def progress(self, node: "Node", progress: Progress) -> None:
        """Move the bar."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        text = f"{losses}  {progress.seconds:.2f} s/step"
        if progress.data_share >= _SLOW_DATA:
            text += f", {progress.data_share:.0%} of it for data"
        if self.task is not None:
            self.bars.update(self.task, completed=progress.step, text=text)
        if not self.console.is_terminal:
            self.message(f"{node.name}: step {progress.step}  {text}")
        if progress.step == node.steps and progress.data_share >= _SLOW_DATA:
            self.message(
                f"note: {node.name} waited for data in {progress.data_share:.0%} of its time; more loader processes "
                "(runtime.num_workers) or reduced copies (cache.folder) make it faster"
            )

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Print the stage's mIoU per target, and the mean over several targets."""
        self._scores(node.name, targets, "images")

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Print the same of the test images."""
        self._scores(f"{node.name}, test", targets, "test images")

    def _scores(self, what: str, targets: Mapping[str, Scores], images: str) -> None:
        for target, scores in targets.items():
            text = "no class to score" if scores.miou is None else f"mIoU {scores.miou:.1f} %"
            means = "".join(f", {name} {value:.1f} %" for name, value in scores.subsets.items() if value is not None)
            self.message(f"{what}: {target} {text}{means} ({scores.images} {images})")
        mean = mean_miou(targets)
        if len(targets) > 1 and mean is not None:
            self.message(f"{what}: mean over {len(targets)} targets {mean:.1f} %")

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """Name the file of the results."""
        self.bars.stop()
        self.message(f"results: {self.folder / 'results.json'}")

    def close(self) -> None:
        """Stop drawing."""
        self.bars.stop()
