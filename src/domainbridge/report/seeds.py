"""Several runs beside each other; runs that differ in the seed alone have a mean and a spread."""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from domainbridge.report.comparison import StageScore
from domainbridge.report.run_facts import RunFacts

__all__ = ["SeedGroup", "Spread", "seed_groups"]

_NO_MATTER = ("seed", "data_root", "runtime", "name")
"""Keys in which runs of one recipe may differ."""

Tables = list[dict[str, dict[str, StageScore]]]


@dataclass(frozen=True)
class Spread:
    """mIoU of a stage on a target over several seeds, in percent; gain in points.

    Attributes:
        stage, target: names.
        values: of each run.
        gains: over source-only, of each run that has them.
    """

    stage: str
    target: str
    values: tuple[float, ...]
    gains: tuple[float, ...]

    @property
    def text(self) -> str:
        """Mean and standard deviation."""
        return _mean_text(self.values)

    @property
    def gain_text(self) -> str:
        """Mean and standard deviation of the gains; empty without gains."""
        return _mean_text(self.gains, signed=True) if self.gains else ""


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one recipe with several seeds."""

    name: str
    seeds: tuple[str, ...]
    spreads: tuple[Spread, ...]


def seed_groups(runs: list[RunFacts], tables: Tables) -> list[SeedGroup]:
    """Groups of at least two runs whose recipes differ in the seed alone."""
    groups: list[tuple[Any, list[int]]] = []
    for number, run in enumerate(runs):
        key = {name: value for name, value in run.recipe.items() if name not in _NO_MATTER}
        same = next((members for other, members in groups if run.recipe and other == key), None)
        if same is None:
            groups.append((key, [number]))
        else:
            same.append(number)
    return [_group(runs, tables, members) for _, members in groups if len(members) > 1]


def _group(runs: list[RunFacts], tables: Tables, members: list[int]) -> SeedGroup:
    cells: dict[tuple[str, str], list[StageScore]] = {}
    for number in members:
        for target, row in tables[number].items():
            for stage, score in row.items():
                if score.scores.miou.known:
                    cells.setdefault((target, stage), []).append(score)
    spreads = [
        Spread(
            stage,
            target,
            tuple(score.scores.miou.value for score in scores),
            tuple(score.gain.miou.value for score in scores if score.gain is not None and score.gain.miou.known),
        )
        for (target, stage), scores in cells.items()
    ]
    seeds = tuple(str(runs[number].recipe.get("seed", "?")) for number in members)
    return SeedGroup(runs[members[0]].name, seeds, tuple(spreads))


def _mean_text(values: tuple[float, ...], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if len(values) < 2:
        return f"{values[0]:{sign}.1f} (one run)"
    return f"{mean(values):{sign}.1f} ± {stdev(values):.1f}"
