"""Results of a run: one class, one JSON form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule
from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import RunFolderError
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import mean_miou, score_sets
from domainbridge.files import digest, read_json, write_text
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.context import Context
from domainbridge.run.graph import Node, final_stage
from domainbridge.run.stage_status import StageState
from domainbridge.runtime.signals import StopRequested

__all__ = ["Results", "StageResult", "StageScores", "evaluate_stage", "gather_results", "is_scored", "read_results"]


@dataclass(frozen=True)
class StageResult:
    """Of one finished stage.

    Attributes:
        seconds: spent on the stage.
        steps: optimizer steps, or batches of a stage that does not train.
        targets: scores by target; empty for a stage that is not scored.
    """

    seconds: float
    steps: int
    targets: dict[str, Scores] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; with several targets also the mean of their mIoU."""
        targets = {name: scores.to_json() for name, scores in self.targets.items()}
        content: dict[str, Any] = {"seconds": self.seconds, "steps": self.steps, "targets": targets}
        if len(targets) > 1:
            content["mean"] = mean_miou(self.targets)
        return content


@dataclass(frozen=True)
class Results:
    """Of a run, as ``results.json`` holds them.

    Attributes:
        stages: finished stages in order.
        final: stage whose student is the run's model.
    """

    stages: dict[str, StageResult]
    final: str

    def to_json(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {"stages": {name: stage.to_json() for name, stage in self.stages.items()}, "final": self.final}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Results":
        """The opposite of ``to_json``."""
        stages = {
            name: StageResult(
                entry["seconds"],
                entry["steps"],
                {target: Scores.from_json(scores) for target, scores in entry["targets"].items()},
            )
            for name, entry in content["stages"].items()
        }
        return cls(stages, content["final"])


@dataclass(frozen=True)
class StageScores:
    """A stage's scores by target.

    Attributes:
        targets: by name.
        model: the network that was scored, on the device; None when the scores were kept from an earlier start.
    """

    targets: dict[str, Scores]
    model: Segmenter | None


def read_results(folder: Path) -> Results:
    """The results of a run folder.

    Raises:
        RunFolderError: no ``results.json``, or a damaged one.
    """
    path = folder / "results.json"
    content = read_json(path)
    try:
        if content is None:
            raise KeyError("no such file, or no JSON")
        return Results.from_json(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read as results ({error}); run the recipe again") from error


def evaluate_stage(node: Node, context: Context, data: DataSets) -> StageScores | None:
    """Score a stage's model on each target's validation set, unless the scores are kept already.

    Returns:
        None after a requested stop, which a single process obeys between two images.
    """
    path = context.folder / node.name / "evaluation.json"
    fingerprint = _evaluation_fingerprint(node, context.recipe, data)
    processes = context.runtime.processes
    kept = processes.broadcast(_kept_scores(path, fingerprint))
    if kept is not None:
        return StageScores(kept, None)
    model, _ = load_model(context.folder / node.name / "model")
    context.runtime.place(model, channels_last=context.recipe.training.channels_last)

    def progress() -> None:
        if processes.count == 1 and context.stop_requested():
            raise StopRequested

    try:
        rule, report = scoring_rule(context.recipe), context.callback.message
        targets = score_sets(model, data.validation, rule, context.runtime, progress, report)
    except StopRequested:
        return None
    if processes.is_main:
        content = {"fingerprint": fingerprint, "targets": {name: s.to_json() for name, s in targets.items()}}
        write_text(path, json.dumps(content, indent=1) + "\n")
    return StageScores(targets, model)


def gather_results(nodes: Iterable[Node], recipe: Recipe, data: DataSets, folder: Path) -> Results:
    """Read the stage folders; only finished stages and present scores are listed."""
    nodes = list(nodes)
    stages = {}
    for node in nodes:
        done = StageState.read(folder / node.name).done
        if done is None or done.get("fingerprint") != node.fingerprint:
            continue
        path = folder / node.name / "evaluation.json"
        targets = _kept_scores(path, _evaluation_fingerprint(node, recipe, data)) or {}
        stages[node.name] = StageResult(round(done["seconds"], 1), done["steps"], targets)
    return Results(stages, final_stage(nodes))


def is_scored(node: Node, recipe: Recipe, data: DataSets, folder: Path) -> bool:
    """Whether a stage's scores of the same files and rule are kept in the run folder."""
    return _kept_scores(folder / node.name / "evaluation.json", _evaluation_fingerprint(node, recipe, data)) is not None


def _kept_scores(path: Path, fingerprint: str) -> dict[str, Scores] | None:
    """Scores of the same model, files and rule from an earlier start."""
    content = read_json(path)
    if content is None or content.get("fingerprint") != fingerprint:
        return None
    try:
        return {name: Scores.from_json(scores) for name, scores in content["targets"].items()}
    except (KeyError, TypeError, AttributeError):  # damaged: the scores are made again
        return None


def _evaluation_fingerprint(node: Node, recipe: Recipe, data: DataSets) -> str:
    """Changes when the model, the validation files or the rule of scoring change."""
    validation = {
        target.name: [target.validation.model_dump(mode="json"), files_fingerprint(data.validation[target.name])]
        for target in recipe.targets
        if target.validation is not None
    }
    return digest([node.fingerprint, recipe.evaluation.model_dump(mode="json", exclude_defaults=True), validation])
