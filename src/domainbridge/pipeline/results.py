"""Scores of the stages' models, and ``results.json``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.evaluation.scoring import score
from domainbridge.files import write_text
from domainbridge.models.store import load_model
from domainbridge.pipeline.datasets import DataSets
from domainbridge.pipeline.labels import scoring_rule
from domainbridge.pipeline.plan import Stage, digest, final_stage, read_json
from domainbridge.training.runtime import Runtime

__all__ = ["evaluate_stage", "evaluation_fingerprint", "mean_over_targets", "write_results"]


def evaluation_fingerprint(stage: Stage, recipe: Recipe, data: DataSets) -> str:
    """Changes when the model, the validation files or the way of scoring change."""
    validation = {
        target.name: [
            target.validation.model_dump(mode="json"),
            files_fingerprint(data.validation[target.name]),
        ]
        for target in recipe.targets
        if target.validation is not None
    }
    return digest([stage.fingerprint, recipe.evaluation.model_dump(mode="json"), validation])


def evaluate_stage(
    stage: Stage,
    recipe: Recipe,
    data: DataSets,
    run_folder: Path,
    runtime: Runtime,
) -> dict[str, Any]:
    """Score a stage's model on each target's validation set, unless that was done already.

    Returns:
        {target: {"miou", "iou": {class: value or None}, "accuracy", "images", "subsets"}}, in percent.
    """
    path = run_folder / stage.name / "evaluation.json"
    fingerprint = evaluation_fingerprint(stage, recipe, data)
    processes = runtime.processes
    known = processes.agreed(read_json(path))
    if known is not None and known.get("fingerprint") == fingerprint:
        targets: dict[str, Any] = known["targets"]
        return targets
    model, _ = load_model(run_folder / stage.name / "model")
    runtime.place(model, channels_last=recipe.training.channels_last)
    rule = scoring_rule(recipe)
    targets = {}
    for target in recipe.targets:
        if target.validation is not None:
            samples = data.validation[target.name]
            share = slice(processes.rank, None, processes.count)
            scored = score(model, samples, rule, runtime.device, share=share, total=processes.total)
            targets[target.name] = asdict(scored)
    if processes.leader:
        write_text(path, json.dumps({"fingerprint": fingerprint, "targets": targets}, indent=1) + "\n")
    return targets


def mean_over_targets(targets: dict[str, Any]) -> float | None:
    """Mean of the targets' mIoU; None when one has none."""
    found = [scored["miou"] for scored in targets.values()]
    return None if None in found else sum(found) / len(found)


def write_results(stages: list[Stage], recipe: Recipe, data: DataSets, run_folder: Path) -> dict[str, Any]:
    """Gather what the stage folders say into ``results.json``; only finished stages and present scores are listed."""
    listed = {}
    for stage in stages:
        done = read_json(run_folder / stage.name / "done.json")
        if done is None or done.get("fingerprint") != stage.fingerprint:
            continue
        scored = read_json(run_folder / stage.name / "evaluation.json") or {}
        if scored.get("fingerprint") != evaluation_fingerprint(stage, recipe, data):
            scored = {}
        targets = scored.get("targets", {})
        entry = {"seconds": round(done["seconds"], 1), "steps": done["steps"], "targets": targets}
        if len(targets) > 1:
            entry["mean"] = mean_over_targets(targets)
        listed[stage.name] = entry
    results = {"stages": listed, "final": final_stage(recipe)}
    write_text(run_folder / "results.json", json.dumps(results, indent=1) + "\n")
    return results
