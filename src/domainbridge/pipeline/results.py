"""Scores of the stages' models, and ``results.json``."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import DataError, ModelError, RecipeError, problem_list
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.scoring import score
from domainbridge.files import write_text
from domainbridge.models.segmenter import Segmenter
from domainbridge.models.store import load_model
from domainbridge.pipeline.datasets import DataSets, list_data
from domainbridge.pipeline.labels import scoring_rule, training_space
from domainbridge.pipeline.plan import Stage, digest, final_stage, read_json
from domainbridge.training.interruption import StopRequested
from domainbridge.training.runtime import Runtime, resolve_runtime

__all__ = [
    "evaluate_stage",
    "evaluation_fingerprint",
    "mean_over_targets",
    "score_model",
    "score_targets",
    "write_results",
]


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
    stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Score a stage's model on each target's validation set, unless that was done already.

    Returns:
        {target: {"miou", "iou": {class: value or None}, "accuracy", "images", "subsets"}}, in percent; None after a
        requested stop, which one process alone obeys between two images.
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

    def progress() -> None:
        if processes.count == 1 and stop_requested():
            raise StopRequested

    try:
        targets = score_targets(model, recipe, data, runtime, progress)
    except StopRequested:
        return None
    if processes.leader:
        write_text(path, json.dumps({"fingerprint": fingerprint, "targets": targets}, indent=1) + "\n")
    return targets


def score_targets(
    model: Segmenter,
    recipe: Recipe,
    data: DataSets,
    runtime: Runtime,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Scores of a network on each target's validation set, as the recipe's ``evaluation`` says.

    Args:
        model: of the recipe's classes, on the runtime's device.
        recipe: complete.
        data: its files.
        runtime: of all processes that score together.
        progress: called after every image; it may raise to stop.
    """
    rule, processes = scoring_rule(recipe), runtime.processes
    share = slice(processes.rank, None, processes.count)
    return {
        name: asdict(score(model, samples, rule, runtime.device, share=share, total=processes.total, progress=progress))
        for name, samples in data.validation.items()
    }


def score_model(folder: Path, recipe: Recipe, device: str = "auto") -> dict[str, Scores]:
    """Scores of a model folder on each target's validation set, exactly as a run of the recipe scores its stages.

    Raises:
        ModelError: no model folder, or its classes are not the recipe's.
        InputError: no target has a validation set, or its files are not in order.
    """
    model, card = load_model(folder)
    classes = training_space(recipe).classes
    if card.classes != classes:
        raise ModelError(
            f"{folder}: predicts {', '.join(card.classes)}, but recipe {recipe.name} trains {', '.join(classes)}"
        )
    data, problems = list_data(recipe)
    if not data.validation:
        raise RecipeError(f"recipe {recipe.name}: no target has a validation section to score on")
    if not all(map(len, data.validation.values())) or any(".validation" in problem for problem in problems):
        raise DataError(problem_list(f"recipe {recipe.name}: validation sets that cannot be used", problems))
    runtime = resolve_runtime(device, recipe.runtime.threads)
    runtime.place(model, channels_last=recipe.training.channels_last)
    return {name: Scores(**found) for name, found in score_targets(model, recipe, data, runtime).items()}


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
