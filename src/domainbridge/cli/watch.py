"""What a run looks like in a terminal: progress, scores, plans."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.evaluation.confusion import Scores
    from domainbridge.pipeline.check import Survey
    from domainbridge.pipeline.execute import PlannedStage
    from domainbridge.pipeline.plan import Stage, Verdict
    from domainbridge.pipeline.probe import Probe
    from domainbridge.pipeline.shares import DomainShares
    from domainbridge.training.loop import Progress as Report

__all__ = ["Watcher", "counting", "print_plan", "print_scores", "print_shares", "print_survey", "watching"]


_LONG = 10 * 3600
"""Seconds that are told in hours."""


class Watcher:
    """A listener that draws one progress bar per stage; without a terminal it prints a line per report."""

    def __init__(self, console: Console, bars: Progress) -> None:
        self.console = console
        self.bars = bars
        self.task: TaskID | None = None

    def message(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def stage_begins(self, stage: "Stage", verdict: "Verdict") -> None:
        """Say what happens to the stage."""
        words = {"done": "done already", "resume": "resuming", "run": "running"}
        self.message(f"{stage.name}: {words[verdict.action]} ({verdict.reason})")
        if self.task is not None:
            self.bars.remove_task(self.task)
            self.task = None
        if verdict.action != "done":
            self.task = self.bars.add_task(stage.name, total=stage.steps, text="")

    def progress(self, stage: str, progress: "Report") -> None:
        """Move the bar."""
        losses = "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        text = f"{losses}  {progress.seconds:.2f} s/step"
        if self.task is not None:
            self.bars.update(self.task, completed=progress.step, text=text)
        if not self.console.is_terminal:
            self.message(f"{stage}: step {progress.step}  {text}")

    def stage_scored(self, stage: "Stage", targets: dict[str, Any]) -> None:
        """Print the stage's mIoU per target, and their mean."""
        from domainbridge.pipeline.results import mean_over_targets

        for target, result in targets.items():
            miou = result["miou"]
            text = "no class to score" if miou is None else f"mIoU {miou:.1f} %"
            means = "".join(
                f", {name} {value:.1f} %" for name, value in result.get("subsets", {}).items() if value is not None
            )
            self.message(f"{stage.name}: {target} {text}{means} ({result['images']} images)")
        mean = mean_over_targets(targets)
        if len(targets) > 1 and mean is not None:
            self.message(f"{stage.name}: mean over {len(targets)} targets {mean:.1f} %")


@contextmanager
def watching(folder: Path, *, speaks: bool = True) -> Iterator[Watcher]:
    """A watcher on stderr; at the end it says where the results are. Of several processes only one ``speaks``."""
    console = Console(stderr=True, quiet=not speaks)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    # Reports may be minutes apart: the time left needs a memory longer than rich's 30 s.
    with Progress(*columns, console=console, speed_estimate_period=3600, disable=not speaks) as bars:
        yield Watcher(console, bars)
    console.print(f"results: {folder / 'results.json'}", highlight=False, markup=False)


@contextmanager
def counting(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for work on files; the yielded function is told (done, in all)."""
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(text, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield advance


def print_plan(
    recipe: "Recipe", planned: "list[PlannedStage]", folder: Path, probed: "dict[str, Probe] | None" = None
) -> None:
    """The plan as a table on stdout."""
    from domainbridge.pipeline.estimate import estimate

    table = Table(title=escape(f"{recipe.name} in {folder}"), title_justify="left")
    for column in ("stage", "steps", "what", "why", "time"):
        table.add_column(column, overflow="fold")
    figures = estimate(recipe, [item.stage for item in planned], folder, probed)
    for item in planned:
        seconds = figures.seconds.get(item.stage.name)
        time = "" if item.verdict.action == "done" else _duration(seconds)
        steps = "?" if item.stage.steps is None else str(item.stage.steps)
        table.add_row(item.stage.name, steps, item.verdict.action, escape(item.verdict.reason), time)
    console = Console()
    console.print(table, highlight=False)
    console.print(figures.explanation, highlight=False, markup=False)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 60:.0f} min" if seconds < _LONG else f"{seconds / 3600:.0f} h"


def print_survey(survey: "Survey") -> None:
    """A line per domain and per warning, on stdout."""
    console = Console()
    for domain in survey.domains:
        bad = f", {len(domain.errors)} cannot be used" if domain.errors else ""
        console.print(f"{domain.name}: {domain.images} images{bad}", highlight=False, markup=False, soft_wrap=True)
        if domain.counts is not None:
            pixels = domain.ignored + int(domain.counts.sum())
            console.print(f"  {domain.ignored / max(pixels, 1):.1%} of the pixels have no class", highlight=False)
    for warning in survey.all_warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)


def print_shares(shares: "list[DomainShares]") -> None:
    """Two columns per domain, on stdout: share of the pixels, share of the images."""
    table = Table()
    table.add_column("class")
    for domain in shares:
        table.add_column(escape(f"{domain.name}\n% of pixels"), justify="right")
        table.add_column("\n% of images", justify="right")
    for name in dict.fromkeys(name for domain in shares for name in domain.pixels):
        cells = [
            f"{100 * part[name]:.2f}" if name in part else ""
            for domain in shares
            for part in (domain.pixels, domain.images)
        ]
        table.add_row(escape(name), *cells)
    table.add_section()
    table.add_row("no class", *(cell for domain in shares for cell in (f"{100 * domain.ignored:.2f}", "")))
    Console().print(table, highlight=False)


def print_scores(scores: "Scores", title: str | None = None) -> None:
    """IoU per class and the means, on stdout."""
    table = Table(title=title and escape(title), title_justify="left")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in scores.iou.items():
        table.add_row(escape(name), "absent" if value is None else f"{value:.2f}")
    table.add_section()
    for name, value in {"mean": scores.miou, **{f"mean of {n}": v for n, v in scores.subsets.items()}}.items():
        table.add_row(name, "none" if value is None else f"{value:.2f}")
    Console().print(table, highlight=False)
