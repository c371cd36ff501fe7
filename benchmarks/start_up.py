"""What listing, planning and sampling cost over 100, 10,000 and 1,000,000 images."""

import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Figures, peak_bytes
from benchmarks.report import Answer
from domainbridge.build.datasets import DataSets, open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.sampling import Mixture
from domainbridge.run.graph import stage_graph

__all__ = ["start_up"]

_COUNTS = (100, 10_000, 1_000_000)
_PER_FOLDER = 1000
_STARTS = 5
_RATIOS = ("seconds", "cpu_seconds", "peak_bytes")


def start_up() -> Answer:
    """Empty files below a folder; the reference implementation lists them as one dictionary each, at every start."""
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for count in _COUNTS:
            _more_files(Path(folder) / "images", count)
            table[str(count)] = _measured(_recipe(Path(folder)), Path(folder), count)
    largest = table[str(_COUNTS[-1])]
    figures = {
        "ours": _figures(largest["next starts"]),
        "reference_implementation": _figures(largest["reference_implementation"]),
        "first start": _figures(largest["first start"]),
    }
    ratio = {key: getattr(figures["reference_implementation"], key) / getattr(figures["ours"], key) for key in _RATIOS}
    return {
        **{name: value.tree() for name, value in figures.items()},
        "ratio": {key: round(value, 2) for key, value in ratio.items()},
        "about": {"images": _COUNTS[-1], "by_number_of_images": table},
    }


def _figures(costs: dict[str, float]) -> Figures:
    seconds = sum(costs.get(part, 0.0) for part in ("listing_seconds", "planning_seconds", "first_sample_seconds"))
    return Figures(seconds, 0.0, seconds, int(costs["peak_bytes"]))


def _measured(recipe: Recipe, folder: Path, count: int) -> dict[str, dict[str, float]]:
    """CPU seconds of the first start, of later ones, and of the reference implementation's listing (medians)."""
    first = _started(recipe, count)
    later = [_started(recipe, count) for _ in range(_STARTS)]
    listed = [_listed_by_reference(folder / "images") for _ in range(_STARTS)]
    return {
        "first start": first,
        "next starts": {key: median(start[key] for start in later) for key in first},
        "reference_implementation": {key: median(start[key] for start in listed) for key in listed[0]},
    }


def _listed_by_reference(folder: Path) -> dict[str, float]:
    seconds: list[float] = []

    def listing() -> None:
        began = time.process_time()
        _published_list(folder)
        seconds.append(time.process_time() - began)

    peak = peak_bytes(listing)
    return {"listing_seconds": round(seconds[0], 6), "peak_bytes": peak}


def _started(recipe: Recipe, count: int) -> dict[str, float]:
    seconds: dict[str, float] = {}

    def everything() -> None:
        began = time.process_time()
        data = open_data(recipe)
        seconds["listing_seconds"] = time.process_time() - began
        assert len(data.target) == count
        seconds.update(_planned_and_sampled(recipe, data))

    peak = peak_bytes(everything)
    return {**{key: round(value, 7) for key, value in seconds.items()}, "peak_bytes": peak}


def _planned_and_sampled(recipe: Recipe, data: DataSets) -> dict[str, float]:
    began = time.process_time()
    stage_graph(recipe, data)
    planned = time.process_time()
    order = Mixture((len(data.target),))
    order.index(0, "stage", 0)
    first = time.process_time()
    for position in range(1000):
        order.index(0, "stage", position)
    sampled = time.process_time()
    return {
        "planning_seconds": planned - began,
        "first_sample_seconds": first - planned,
        "next_samples_seconds": (sampled - first) / 1000,
    }


def _published_list(folder: Path) -> list[dict[str, Any]]:
    listed = []
    for directory, _, names in os.walk(folder):
        for name in names:
            path = str(Path(directory, name))
            listed.append({"filename": path, "ann": {"seg_map": path.replace("images", "labels")}})
    return sorted(listed, key=lambda entry: str(entry["filename"]))


def _more_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // _PER_FOLDER:04}" / f"{number % _PER_FOLDER:04}.png"
        if number % _PER_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _recipe(folder: Path) -> Recipe:
    domain = {"name": "many", "root": str(folder), "images": "images"}
    return parse_recipe(
        {
            "name": "many",
            "label_space": {"name": "two", "classes": ["a", "b"]},
            "sources": [{**domain, "labels": "images"}],
            "targets": [domain],
        }
    )
