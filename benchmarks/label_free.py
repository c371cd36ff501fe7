"""How well scores without labels tell the true mIoU: ``python -m benchmarks label_free RUN [RUN ...]``.

Runs are finished or half-finished run folders with labeled validation sets. Every finished training stage is scored
again on its target's training images, with the number of images asked for, and compared with the mIoU in its
``evaluation.json``. Nothing is written into the run folders. With ``--out FILE`` scores are kept and taken up again.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import load_recipe
from domainbridge.files import digest, read_json, write_text
from domainbridge.run.graph import stage_graph
from domainbridge.run.label_free import label_free_scores, reference_stage, walk_of
from domainbridge.run.selection import LESS_IS_BETTER, candidates
from domainbridge.run.stage_status import StageState
from domainbridge.runtime.device import Runtime

__all__ = ["Scored", "main", "report", "spearman"]

_NO_ORDER = ("predicted_miou_low", "predicted_miou_high")


@dataclass(frozen=True)
class Scored:
    """A finished stage of a run on one target: its true mIoU in percent, and its scores without labels.

    Attributes:
        candidate: whether it is one that a selection chooses from.
        source_miou: on the source images of the calibration, without any shift; the simplest prediction.
    """

    run: str
    stage: str
    target: str
    candidate: bool
    miou: float
    scores: dict[str, float]
    source_miou: float | None = None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks label_free", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--images", type=int, default=32, help="images per target (default 32)")
    parser.add_argument("--data-root", help="folder of the data sets, if it moved since the run")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, help="JSON file of the scores")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    kept = (read_json(given.out) or {}) if given.out else {}
    scored: list[Scored] = []
    for run in given.runs:
        scored += _of_run(run, given.images, given.data_root, kept)
        if given.out:
            write_text(given.out, json.dumps(kept, indent=1) + "\n")
    if not scored:
        parser.error("no finished training stage with a score in these folders")
    print(report(scored))
    return 0


def _of_run(run: Path, images: int, data_root: str | None, kept: dict[str, list[dict[str, object]]]) -> list[Scored]:
    """All stages that are done and scored; ``kept`` is read and added to."""
    recipe = load_recipe(str(run / "recipe.yaml"), [f"data_root={data_root}"] if data_root else [])
    data = open_data(recipe)
    nodes = stage_graph(recipe, data)
    result: list[Scored] = []
    for node in nodes:
        truth = read_json(run / node.name / "evaluation.json")
        if not node.keeps_model or truth is None or StageState.read(run / node.name).done is None:
            continue
        before = reference_stage(node, nodes, run)
        key = digest([str(run.absolute()), node.fingerprint, before and before.fingerprint, images])
        if key not in kept:
            print(f"scoring {run.name}/{node.name}", flush=True)
            walk = walk_of(run, node.name, before and before.name, recipe, Runtime(torch.device("cpu"), 0))
            source, scores = label_free_scores(walk, recipe, data, images)
            unshifted = source.shifts.get("none", {}).get("miou")
            kept[key] = [
                asdict(Scored(run.name, node.name, name, node.name in candidates(nodes), miou, scores[name], unshifted))
                for name in scores
                if (miou := truth["targets"].get(name, {}).get("miou")) is not None
            ]
        result += [Scored(**entry) for entry in kept[key]]  # type: ignore[arg-type]
    return result


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 1 on; equal values share the mean of their ranks."""
    array = np.asarray(values, np.float64)
    _, group, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[group]


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation; None with fewer than three values or without order in one of them."""
    if len(one) < 3 or len(set(one)) == 1 or len(set(other)) == 1:
        return None
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def report(scored: Sequence[Scored]) -> str:
    """Markdown: correlation of every score with the mIoU, errors of the predictions, what each selection is worth."""
    parts = [_correlations(scored), _predictions(scored), _selections(scored), _stages(scored)]
    return "\n\n".join(part for part in parts if part)


def _groups(scored: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for each in scored:
        groups.setdefault(key(each), []).append(each)
    return groups


def _recipe(each: Scored) -> str:
    """A run's name without its seed."""
    return f"{each.run.rpartition('-')[0] or each.run}, {each.target}"


def _correlation(group: Sequence[Scored], name: str) -> float | None:
    """Positive where a better score goes with a higher mIoU."""
    pairs = [(each.scores[name], each.miou) for each in group if name in each.scores]
    value = spearman([score for score, _ in pairs], [miou for _, miou in pairs])
    return None if value is None else -value if name in LESS_IS_BETTER else value


def _correlations(scored: Sequence[Scored]) -> str:
    runs = _groups(scored, lambda each: f"{each.run}, {each.target}")
    adapted = {name: [each for each in group if each.stage != "source-only"] for name, group in runs.items()}
    recipes = _groups(scored, _recipe)
    names = dict.fromkeys(name for each in scored for name in each.scores if name not in _NO_ORDER)
    lines = [
        f"Spearman correlation with the true mIoU ({len(scored)} stages of {len(runs)} runs); positive where the "
        "better score goes with the higher mIoU",
        "",
        "| score | within a run, mean (least) | within a run, without source-only | stages of all seeds of a recipe | "
        "all stages |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        cells = [
            _mean_text([_correlation(group, name) for group in groups.values()]) for groups in (runs, adapted, recipes)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {_text(_correlation(scored, name))} |")
    return "\n".join(lines)


def _mean_text(values: Sequence[float | None]) -> str:
    present = [value for value in values if value is not None]
    return f"{mean(present):.2f} ({min(present):.2f})" if present else ""


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _predictions(scored: Sequence[Scored]) -> str:
    known = [each for each in scored if "predicted_miou" in each.scores]
    if not known:
        return ""
    lines = [
        "| recipe, target | stages | mean absolute error | mean error | inside the interval | its mean width | mean "
        "absolute error of the recipe's mean mIoU | of the source's mIoU |",
        "|---" * 8 + "|",
    ]
    for name, group in {**_groups(known, _recipe), "all": known}.items():
        errors = [each.scores["predicted_miou"] - each.miou for each in group]
        inside = [
            each.scores["predicted_miou_low"] <= each.miou <= each.scores["predicted_miou_high"] for each in group
        ]
        width = mean(each.scores["predicted_miou_high"] - each.scores["predicted_miou_low"] for each in group)
        spread = mean(
            abs(each.miou - mean(other.miou for other in group if _recipe(other) == _recipe(each))) for each in group
        )
        of_source = [abs(each.source_miou - each.miou) for each in group if each.source_miou is not None]
        lines.append(
            f"| {name} | {len(group)} | {mean(map(abs, errors)):.1f} | {mean(errors):+.1f} | {sum(inside)} of "
            f"{len(inside)} | {width:.1f} | {spread:.1f} | {f'{mean(of_source):.1f}' if of_source else ''} |"
        )
    return "predicted mIoU, in points\n\n" + "\n".join(lines)


def _selections(scored: Sequence[Scored]) -> str:
    """What the selected stage has more than the last one, per run and target with at least two to choose from."""
    runs = list(_groups(scored, lambda each: f"{each.run}, {each.target}").values())
    pools: Mapping[str, Callable[[Scored], bool]] = {
        "each round's student": lambda each: each.candidate,
        "all but source-only": lambda each: each.stage != "source-only",
    }
    lines = [
        "| selection | " + " | ".join(f"{pool}: mean (least) gain over last" for pool in pools) + " |",
        "|---|---|---|",
    ]
    names = dict.fromkeys(name for each in scored for name in each.scores if name not in _NO_ORDER)
    counts = []
    for name in ("best, by labels", *names):
        cells = []
        for wanted in pools.values():
            gains = [gain for run in runs if (gain := _gain([each for each in run if wanted(each)], name)) is not None]
            cells.append(f"{mean(gains):+.2f} ({min(gains):+.2f})" if gains else "")
            counts.append(len(gains))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return f"selection of the final stage, mIoU in points ({max(counts, default=0)} runs)\n\n" + "\n".join(lines)


def _gain(pool: Sequence[Scored], name: str) -> float | None:
    if len(pool) < 2 or not pool[-1].candidate:
        return None
    if name == "best, by labels":
        return max(each.miou for each in pool) - pool[-1].miou
    if not all(name in each.scores for each in pool):
        return None
    sign = -1 if name in LESS_IS_BETTER else 1
    return max(reversed(pool), key=lambda each: sign * each.scores[name]).miou - pool[-1].miou


def _stages(scored: Sequence[Scored]) -> str:
    names = list(dict.fromkeys(name for each in scored for name in each.scores))
    lines = [f"| run | stage | target | mIoU | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for each in scored:
        cells = [f"{each.scores[name]:.1f}" if name in each.scores else "" for name in names]
        lines.append(f"| {each.run} | {each.stage} | {each.target} | {each.miou:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)
