"""Methods beside each other: ``python -m benchmarks methods --out FOLDER [--data-root DATA] [--page FILE]``.

``methods.yaml`` says which methods, data sets and budget. Every combination with every seed is a run below FOLDER; runs
that are finished are not repeated, and a run that was stopped goes on. With ``--only NAME``, other methods wait. With
``--page FILE`` the table of all finished runs in FOLDER is written there, else printed; ``--no-runs`` starts none.
"""

import argparse
import copy
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from domainbridge.build.recipe import parse_recipe, stages_of, training_config
from domainbridge.config.load import recipe_path
from domainbridge.config.schema import Recipe
from domainbridge.errors import RunFolderError
from domainbridge.files import write_text
from domainbridge.methods.base import TrainingStage
from domainbridge.report.run_facts import BASELINE, RunFacts, read_run

__all__ = ["Row", "budget_of", "combinations", "main", "page", "read_rows", "recipe_tree", "settings"]

_SETTINGS = Path(__file__).parent / "methods.yaml"
_SHARED = ("label_space", "sources", "targets", "evaluation", "model", "crop")
"""Sections that a combination takes from the shipped recipe of its data."""


def settings() -> dict[str, Any]:
    """Content of ``methods.yaml``."""
    content: dict[str, Any] = yaml.safe_load(_SETTINGS.read_text())
    return content


def recipe_tree(given: Mapping[str, Any], data: str, method: str, seed: int) -> dict[str, Any]:
    """The recipe of one combination: the shipped recipe's data and network, the common keys, the method's.

    A later part takes a key of an earlier one back with null.
    """
    shipped = yaml.safe_load(recipe_path(data).read_text())
    tree = {key: shipped[key] for key in _SHARED if key in shipped}
    chosen = given["methods"][method]
    for part in (given["common"], given["data"][data], chosen["recipe"], chosen.get("data", {}).get(data, {})):
        tree = _merged(tree, part)
    given_keys = {key: value for key, value in tree.items() if value is not None}
    return {**given_keys, "name": f"{data}.{method}.{seed}", "seed": seed}


def _merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(copy.deepcopy(tree))
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        elif key == "targets" and isinstance(old, list):  # each target keeps what is not named
            value = [_merged(target, part) for target, part in zip(old, value, strict=True)]
        merged[key] = value
    return merged


def budget_of(recipe: Recipe) -> int:
    """Passes of trained networks after source-only; those of the oracle, which does without, count too."""
    stages = [spec for spec in stages_of(recipe) if isinstance(spec, TrainingStage) and spec.name != BASELINE]
    return sum(training_config(recipe, spec).steps * spec.student_passes for spec in stages)


@dataclass(frozen=True)
class Row:
    """A method on a target, over its seeds.

    Attributes:
        data, target, method: names.
        source_only, adabn, final: mIoU in percent, a value per seed; final of the method's `scored_stage`, if given.
        minutes: of the stages after the baselines, a value per seed.
    """

    data: str
    target: str
    method: str
    source_only: tuple[float, ...]
    adabn: tuple[float, ...]
    final: tuple[float, ...]
    minutes: tuple[float, ...]


def read_rows(folder: Path, given: Mapping[str, Any]) -> list[Row]:
    """Rows of all finished runs in a folder, in the order of the settings."""
    rows = []
    for data in given["data"]:
        for method in given["methods"]:
            runs = [run for path in sorted(folder.glob(f"{data}.{method}.*")) if (run := _finished(path)) is not None]
            scored = given["methods"][method].get("scored_stage")
            for target in dict.fromkeys(name for run in runs for name in run.stages[run.final].scores):
                rows.append(_row(data, method, target, runs, scored))
    return rows


def _finished(folder: Path) -> RunFacts | None:
    try:
        run = read_run(folder)
    except RunFolderError:
        return None
    return run if run.finished else None


def _row(data: str, method: str, target: str, runs: Sequence[RunFacts], scored: str | None) -> Row:
    def scores(stages: Sequence[str]) -> tuple[float, ...]:
        present = [run.stages[name] for run, name in zip(runs, stages, strict=True) if name in run.stages]
        values = [stage.scores[target].miou for stage in present if target in stage.scores]
        return tuple(value for value in values if value is not None)

    minutes = (sum(s.seconds for s in run.stages.values() if s.name not in (BASELINE, "adabn")) / 60 for run in runs)
    return Row(
        data,
        target,
        method,
        scores([BASELINE] * len(runs)),
        scores(["adabn"] * len(runs)),
        scores([scored or run.final for run in runs]),
        tuple(minutes),
    )


def page(rows: Sequence[Row], given: Mapping[str, Any]) -> str:
    """Markdown: a table per data set."""
    parts = []
    for data in dict.fromkeys(row.data for row in rows):
        listed = [row for row in rows if row.data == data]
        several = len({row.target for row in listed}) > 1
        head = [*(["target"] if several else []), "method", "seeds", "source-only", "AdaBN", "final", "gain", "minutes"]
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        for row in listed:
            gains = tuple(after - before for after, before in zip(row.final, row.source_only, strict=False))
            values = [_text(v) for v in (row.source_only, row.adabn, row.final)]
            title = given["methods"][row.method]["title"]
            cells = [*([row.target] if several else []), title, str(len(row.final)), *values, _text(gains, "+")]
            lines.append(f"| {' | '.join([*cells, f'{mean(row.minutes):.0f}'])} |")
        parts.append(f"## {data}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _text(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation; a single value has none."""
    if not values:
        return ""
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.1f}{spread}"


def main(arguments: Sequence[str]) -> int:
    given = settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks methods", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(given["methods"]), help="methods to run")
    parser.add_argument("--data", nargs="+", choices=list(given["data"]), help="data sets to run on")
    parser.add_argument("--page", type=Path, help="file with the line '<!-- tables -->', whose rest is replaced")
    parser.add_argument("--no-runs", action="store_true", help="the table of what is finished, and no run")
    chosen = parser.parse_args(arguments)
    failed = [] if chosen.no_runs else _run_all(given, chosen)
    text = page(read_rows(chosen.out, given), given)
    if chosen.page:
        before = chosen.page.read_text().partition("<!-- tables -->")[0]
        write_text(chosen.page, f"{before}<!-- tables -->\n\n{text}")
    else:
        print(text)
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return 1 if failed else 0


def combinations(given: Mapping[str, Any], data: Sequence[str], methods: Sequence[str]) -> list[tuple[str, str]]:
    """Data set and method of every run of a seed; a method with `only` is tried on those data sets."""
    return [(d, m) for d in data for m in methods if d in given["methods"][m].get("only", given["data"])]


def _run_all(given: Mapping[str, Any], chosen: argparse.Namespace) -> list[str]:
    """Run every combination, seed by seed, so that an early end leaves whole seeds; names of those that failed."""
    failed = []
    wanted = combinations(given, chosen.data or list(given["data"]), chosen.only or list(given["methods"]))
    for seed in chosen.seeds:
        for data, method in wanted:
            tree = recipe_tree(given, data, method, seed)
            parse_recipe(tree)
            folder = chosen.out / tree["name"]
            file = chosen.out / f"{tree['name']}.yaml"
            write_text(file, yaml.safe_dump(tree, sort_keys=False))
            overrides = [f"data_root={chosen.data_root}"] if chosen.data_root else []
            command = [sys.executable, "-m", "domainbridge", "run", str(file), *overrides, "--out", str(folder)]
            with (chosen.out / f"{tree['name']}.log").open("a") as log:
                environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
                done = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False)
            if done.returncode:
                failed.append(tree["name"])
    return failed
