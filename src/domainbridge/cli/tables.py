"""Tables and bars of the commands: plans, findings, class shares, scores."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from domainbridge.cli.terminal import cell, say
from domainbridge.printable import printable

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.evaluation.confusion import Scores
    from domainbridge.report.comparison import StageScore
    from domainbridge.run.graph import PlannedStage
    from domainbridge.tools.estimate import Estimate
    from domainbridge.tools.statistics import DomainShares
    from domainbridge.tools.survey import Survey

__all__ = [
    "counting",
    "print_found",
    "print_outcome",
    "print_plan",
    "print_scores",
    "print_shares",
    "print_survey",
    "time_left",
]

_LONG = 10 * 3600
"""Seconds from which durations are given in hours."""


@contextmanager
def counting(text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for work on files; the yielded function takes (done, total)."""
    with Progress(console=Console(stderr=True)) as bars:
        task = bars.add_task(text, total=None)

        def advance(done: int, count: int) -> None:
            bars.update(task, completed=done, total=count)

        yield advance


@contextmanager
def time_left(text: str, *, shown: bool = True) -> Iterator[tuple[Callable[[float, int], None], Callable[[str], None]]]:
    """A bar on stderr with the time left, on a terminal only; lines may be printed above it.

    Yields:
        A function of (done, total), and a function that prints a line.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda done, total: None, say
        return
    with Progress(*columns, console=console, speed_estimate_period=120) as bars:
        task = bars.add_task(text, total=1, visible=False)
        yield (
            lambda done, total: bars.update(task, completed=done, total=total, visible=True),
            lambda line: _print_line(bars.console, line),
        )


def _print_line(console: Console, text: str) -> None:
    """A line as it is; a terminal wraps where it ends."""
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def print_plan(recipe: "Recipe", planned: "list[PlannedStage]", folder: Path, estimate: "Estimate") -> None:
    """The plan as a table on stdout; each reason is printed once, with its stages."""
    table = Table(title=cell(f"{recipe.name} in {folder}"), title_justify="left")
    for column in ("stage", "steps", "action", "time"):
        table.add_column(column, overflow="fold")
    reasons: dict[str, list[str]] = {}
    for item in planned:
        time = _duration(estimate.seconds.get(item.name)) if item.open else item.status.reason.partition(" in ")[2]
        steps = "?" if item.node.steps is None else str(item.node.steps)
        table.add_row(cell(item.name), steps, item.status.action, cell(time))
        if item.open or item.status.origin is not None:
            reasons.setdefault(item.status.reason, []).append(item.name)
    console = Console()
    console.print(table, highlight=False)
    for reason, names in reasons.items():
        console.print(printable(f"{', '.join(names)}: {reason}"), highlight=False, markup=False)
    console.print(printable(estimate.explanation), highlight=False, markup=False)


def print_outcome(folder: Path) -> None:
    """What a run came to, on stderr: scores and gains, findings, where report and model are, what to type next."""
    from domainbridge.report.comparison import compare
    from domainbridge.report.run_facts import BASELINE, read_run
    from domainbridge.report.verdict import verdict
    from domainbridge.report.write import REPORT

    if not (folder / "results.json").exists():
        return
    facts, console = read_run(folder), Console(stderr=True)
    scores = compare(facts)
    table = Table()
    table.add_column("stage")
    for target in scores:
        table.add_column(cell(target), justify="right")
        table.add_column("gain", justify="right")
    for stage in facts.predicted_stages:
        row = [scores[target].get(stage.name) for target in scores]
        cells = [text for score in row for text in (_miou_cell(score), _gain_cell(score))]
        table.add_row(cell(stage.name), *cells, style="bold" if stage.name == facts.final else None)
    if scores:
        console.print(f"mIoU in percent; gain over {BASELINE} in points, with its 95 % interval", highlight=False)
        console.print(table, highlight=False)
    for sentence in verdict(facts, scores):
        _print_line(console, sentence.text)
    lines = []
    if (folder / REPORT).exists():
        lines.append(f"report: {folder / REPORT}")
    if facts.finished and (folder / "model").is_dir():
        command = shlex.join(["domainbridge", "predict", str(folder / "model"), "IMAGES", "--out", "segmented"])
        lines += [f"model: {folder / 'model'}", f"next: {command} --overlay"]
    for line in lines:
        _print_line(console, line)


def _miou_cell(score: "StageScore | None") -> str:
    return f"{score.scores.miou.value:.1f}" if score is not None and score.scores.miou.known else ""


def _gain_cell(score: "StageScore | None") -> str:
    if score is None or score.gain is None or not score.gain.miou.known:
        return ""
    gain = score.gain.miou
    return f"{gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})" if gain.low == gain.low else f"{gain.value:+.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{seconds / 60:.0f} min" if seconds < _LONG else f"{seconds / 3600:.0f} h"


def print_found(rows: "Sequence[tuple[str, str, str]]") -> None:
    """What `init` understood, as a table on stdout."""
    table = Table()
    for column in ("what", "found", "evidence"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell(text) for text in row))
    Console().print(table, highlight=False)


def print_survey(survey: "Survey") -> None:
    """A line per domain and per warning, on stdout."""
    console = Console()
    for domain in survey.domains:
        unusable = f", {domain.unusable} cannot be used" if domain.unusable else ""
        _print_line(console, f"{domain.name}: {domain.images} images{unusable}")
        if domain.counts is not None:
            pixels = domain.ignored + int(domain.counts.sum())
            console.print(
                printable(f"  {domain.ignored / max(pixels, 1):.1%} of the pixels have no class"), highlight=False
            )
    for warning in survey.all_warnings:
        _print_line(console, f"warning: {warning}")
    for note in survey.all_notes:
        _print_line(console, f"note: {note}")


def print_shares(shares: "list[DomainShares]") -> None:
    """Two columns per domain, on stdout: share of the pixels, share of the images."""
    table = Table()
    table.add_column("class")
    for domain in shares:
        table.add_column(cell(f"{domain.name}\n% of pixels"), justify="right")
        table.add_column("\n% of images", justify="right")
    for name in dict.fromkeys(name for domain in shares for name in domain.pixels):
        cells = [
            f"{100 * part[name]:.2f}" if name in part else ""
            for domain in shares
            for part in (domain.pixels, domain.images)
        ]
        table.add_row(cell(name), *cells)
    table.add_section()
    table.add_row("no class", *(cell for domain in shares for cell in (f"{100 * domain.ignored:.2f}", "")))
    Console().print(table, highlight=False)


def print_scores(scores: "Scores", title: str | None = None) -> None:
    """IoU per class, the means and the share of pixels that no score counts, on stdout."""
    table = Table(title=title and cell(title), title_justify="left")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in scores.iou.items():
        table.add_row(cell(name), "absent" if value is None else f"{value:.2f}")
    table.add_section()
    for name, value in {"mean": scores.miou, **{f"mean of {n}": v for n, v in scores.subsets.items()}}.items():
        table.add_row(cell(name), "none" if value is None else f"{value:.2f}")
    if scores.ignored is not None:
        table.add_row("pixels without class", f"{scores.ignored:.2f}")
    Console().print(table, highlight=False)
