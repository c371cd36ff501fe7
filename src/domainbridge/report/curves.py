"""Curves of the training stages, one after the other on one axis, as values that the page draws as SVG."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from domainbridge.report.run_facts import RunFacts

__all__ = ["Chart", "Line", "charts"]

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 34
_MOST_POINTS = 300
"""Of a stage's line; of more, evenly spread ones are drawn."""
_TICKS = 4


@dataclass(frozen=True)
class Line:
    """A line of a chart: one polyline per stage, points as SVG writes them."""

    name: str
    number: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """A chart in a box of ``WIDTH`` x ``HEIGHT``.

    Attributes:
        title: what is drawn.
        lines: with names for the legend.
        ticks: (y, text) of the value axis.
        stages: (x where it begins, x of its middle, name).
    """

    title: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]
    stages: tuple[tuple[float, float, str], ...]


Extract = Callable[[dict[str, Any]], dict[str, float]]


def charts(run: RunFacts) -> list[Chart]:
    """Losses, each metric such as the share of confident pseudo-labels, and the learning rate."""
    drawn = [_chart(run, "Losses", lambda entry: _numbers(entry.get("losses")))]
    for metric in _metric_names(run):
        title = "Pseudo-label share" if metric == "pseudo_label_share" else metric
        drawn.append(_chart(run, title, _metric(metric)))
    drawn.append(_chart(run, "Learning rate", lambda entry: _numbers({"backbone": entry.get("lr")})))
    return [chart for chart in drawn if chart is not None]


def _metric(name: str) -> Extract:
    return lambda entry: {key: value for key, value in _numbers(entry.get("metrics")).items() if key == name}


def _metric_names(run: RunFacts) -> list[str]:
    names = [name for s in run.stages.values() for entry in s.metrics for name in _numbers(entry.get("metrics"))]
    return list(dict.fromkeys(names))


def _numbers(values: object) -> dict[str, float]:
    """Named finite numbers; anything else is left out."""
    if not isinstance(values, dict):
        return {}
    pairs = {str(k): float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: value for name, value in pairs.items() if math.isfinite(value)}


def _chart(run: RunFacts, title: str, extract: Extract) -> Chart | None:
    offset = 0
    series: dict[str, list[list[tuple[float, float]]]] = {}
    stages: list[tuple[int, int, str]] = []
    for stage in run.stages.values():
        if not stage.metrics:
            continue
        points: dict[str, list[tuple[float, float]]] = {}
        for entry in _thinned(stage.metrics):
            for name, value in extract(entry).items():
                points.setdefault(name, []).append((offset + entry["step"], value))
        for name, part in points.items():
            series.setdefault(name, []).append(part)
        stages.append((offset, stage.steps, stage.name))
        offset += stage.steps
    if not series or not offset:
        return None
    largest = max(value for parts in series.values() for part in parts for _, value in part)
    smallest = min(0.0, *(value for parts in series.values() for part in parts for _, value in part))
    top = _round_up(largest - smallest) + smallest

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / offset
        return round(across, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (y - smallest) / (top - smallest)), 1)

    def path(part: list[tuple[float, float]]) -> str:
        ends = part * 2 if len(part) == 1 else part  # a line of no length, whose round ends are a dot
        return " ".join("{},{}".format(*place(*point)) for point in ends)

    lines = tuple(
        Line(name, number % 6, tuple(path(part) for part in parts))
        for number, (name, parts) in enumerate(series.items())
    )
    values = [smallest + (top - smallest) * number / _TICKS for number in range(_TICKS + 1)]
    ticks = tuple((place(0, value)[1], _short(value)) for value in values)
    marks = tuple((place(b, 0)[0], place(b + s / 2, 0)[0], name) for b, s, name in stages)
    return Chart(title, lines, ticks, marks)


def _short(value: float) -> str:
    """0.00015 as 1.5e-4."""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.3g}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _thinned(entries: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    if len(entries) <= _MOST_POINTS:
        return entries
    return [entries[len(entries) * number // _MOST_POINTS] for number in range(_MOST_POINTS - 1)] + [entries[-1]]


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8, 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= value * (1 - 1e-9))
