"""A run in a terminal: one progress bar for all stages, scores, and where the results are; on stderr."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import mean_miou
from domainbridge.printable import printable
from domainbridge.run.callbacks.base import NullCallback, register_callback
from domainbridge.run.time_left import TimeLeft
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results
    from domainbridge.run.work import Phase, Work

__all__ = ["ConsoleCallback"]

_SLOW_DATA = 0.25
"""Share of a step's seconds from which on the wait for data is told."""
_ACTIONS = {"done": "done already", "resume": "resuming", "run": "running"}
_UNITS: dict["Phase", str] = {
    "training": "step",
    "statistics": "batch",
    "prototypes": "batch",
    "scoring": "image",
    "label-free scoring": "image",
}


class _RunBar(Bars):
    """One bar for a whole run. What the clock says is drawn at every refresh, also while a long step is computed."""

    def __init__(self, console: Console) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.1f}%"),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[text]}", markup=False),
        )
        self.time_left = TimeLeft(())
        super().__init__(*columns, console=console, refresh_per_second=4)
        self.task = self.add_task("", total=1.0, left="", text="", visible=False)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bring the bar up to the clock, then draw."""
        work, time_left = self.time_left.phase, self.time_left
        if work is not None:
            seconds = time_left.seconds()
            count = f"{_UNITS[work.phase]} {time_left.units_done}/{work.units}"
            self.update(
                self.task,
                completed=time_left.share(),
                description=escape(printable(f"{work.stage}: {work.phase}, {count}")),
                left="time left: unknown" if seconds is None else f"{_clock(seconds)} left",
                visible=True,
            )
        return super().get_renderables()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@register_callback("console")
class ConsoleCallback(NullCallback):
    """Draws one progress bar for the run; without a terminal it prints a line per report."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar = _RunBar(self.console)
        self.folder = Path()

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Remember the folder."""
        self.folder = folder

    def work_begins(self, work: "Sequence[Work]") -> None:
        """Start drawing."""
        self.bar.time_left = TimeLeft(work)
        if work and self.console.is_terminal:
            self.bar.start()

    def advance(self, node: "Node", phase: "Phase", done: int) -> None:
        """Move the bar."""
        self.bar.time_left.advance(node.name, phase, done)

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(printable(text), highlight=False, markup=False)

    def stage_begins(self, planned: "PlannedStage") -> None:
        """Say what happens to the stage."""
        self.message(f"{planned.name}: {_ACTIONS[planned.status.action]} ({planned.status.reason})")
        self.bar.time_left.begin(planned.name)
        self.bar.update(self.bar.task, text="")

    def progress(self, node: "Node", progress: Progress) -> None:
        """Show losses and speed."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        text = f"{losses}  {progress.seconds:.2f} s/step"
        if progress.data_share >= _SLOW_DATA:
            text += f", {progress.data_share:.0%} of it for data"
        self.bar.update(self.bar.task, text=text)
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
        self.close()
        self.message(f"results: {self.folder / 'results.json'}")

    def close(self) -> None:
        """Stop drawing."""
        if self.bar.live.is_started:  # or rich would print an empty line
            self.bar.stop()
