"""A whole small run, time to a given mIoU."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.measure import Figures
from benchmarks.reference_implementation.run import ReferenceRun
from benchmarks.report import Answer, ratios
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import load_recipe
from domainbridge.config.schema import Recipe
from domainbridge.run.graph import Node, stage_graph
from domainbridge.run.run import run_recipe

__all__ = ["small_run"]

_GIVEN = 22.0
"""mIoU in percent on the fog images; source-only has about 13, a finished run 25."""
_NEVER = 101.0
_SIZE = (320, 240)


def small_run() -> Answer:
    """`quickstart` for one round, both ways stage by stage in turn, on one thread and without loader processes."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    recipe = load_recipe("quickstart", ["rounds=1", "runtime.num_workers=0", "runtime.threads=1"])
    with tempfile.TemporaryDirectory() as folder:
        data = open_data(recipe)
        published = ReferenceRun(recipe, data, Path(folder), _SIZE)
        ways: dict[str, Callable[[Node], float | None]] = {
            "ours": lambda stage: _ours(recipe, Path(folder) / "ours", stage),
            "reference_implementation": published.stage,
        }
        course: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
        for stage in stage_graph(recipe, data):
            for name, work in ways.items():
                began, worked = time.perf_counter(), time.process_time()
                score = work(stage)
                seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - worked
                spent = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}
                course[name].append({"stage": stage.name, **spent, "miou": score and round(score, 2)})
    return _answer(course)


def _answer(course: dict[str, list[dict[str, Any]]]) -> Answer:
    figures = {name: _until(stages, _GIVEN) for name, stages in course.items()}
    whole = {name: _until(stages, _NEVER) for name, stages in course.items()}
    beside = {f"{name}, whole run": spent.tree() for name, spent in whole.items()}
    ratio = {**ratios(figures), **{f"whole run, {key}": value for key, value in ratios(whole).items()}}
    return {
        **{name: spent.tree() for name, spent in figures.items()},
        **beside,
        "ratio": ratio,
        "about": {"given_miou": _GIVEN, "by_stage": course},
    }


def _ours(recipe: Recipe, folder: Path, stage: Node) -> float | None:
    run_recipe(recipe, folder, until=stage.name)
    scored = json.loads((folder / "results.json").read_text())["stages"].get(stage.name, {}).get("targets")
    return float(scored["fog"]["miou"]) if scored else None


def _until(stages: list[dict[str, Any]], miou: float) -> Figures:
    """What was spent up to the first stage whose student reaches ``miou``; on all stages if none does."""
    reached = next((n for n, stage in enumerate(stages) if (stage["miou"] or 0) >= miou), len(stages) - 1)
    spent = [sum(stage[key] for stage in stages[: reached + 1]) for key in ("seconds", "cpu_seconds")]
    return Figures(spent[0], 0.0, spent[1])
