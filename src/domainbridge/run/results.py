"""Results of a run: one class, one JSON form."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule
from domainbridge.build.target_sections import held_out_targets, labeled_sections
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import RunFolderError
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import mean_miou, score_sets
from domainbridge.files import digest, read_json, write_text
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.context import Context
from domainbridge.run.graph import Node
from domainbridge.run.image_recorder import held_out_recorder, predict_unlabeled, save_images, stage_recorder
from domainbridge.run.label_free import kept_label_free
from domainbridge.run.selection import selected_stage
from domainbridge.run.stage_status import StageState
from domainbridge.runtime.signals import StopRequested

__all__ = [
    "Results",
    "Role",
    "StageResult",
    "StageScores",
    "evaluate_stage",
    "gather_results",
    "is_scored",
    "read_results",
    "scored_roles",
]

Role = Literal["validation", "test"]
_FILES: dict[Role, str] = {"validation": "evaluation.json", "test": "test-evaluation.json"}
"""Where a stage's scores are kept, in the stage's folder."""


@dataclass(frozen=True)
class StageResult:
    """Of one finished stage.

    Attributes:
        seconds: spent on the stage.
        steps: optimizer steps, or batches of a stage that does not train.
        targets: scores by target; empty for a stage that is not scored.
        tests: scores on the ``test`` or held-out images, of the final stage and the baselines only.
        label_free: scores without labels by target, in percent; empty for a stage without them.
    """

    seconds: float
    steps: int
    targets: dict[str, Scores] = field(default_factory=dict)
    tests: dict[str, Scores] = field(default_factory=dict)
    label_free: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; with several targets also the mean of their mIoU."""
        targets = {name: scores.to_json() for name, scores in self.targets.items()}
        for name, scores in self.tests.items():
            targets.setdefault(name, {})["test"] = scores.to_json()
        content: dict[str, Any] = {"seconds": self.seconds, "steps": self.steps, "targets": targets}
        for key, scored in (("mean", self.targets), ("test_mean", self.tests)):
            if len(scored) > 1:
                content[key] = mean_miou(scored)
        if self.label_free:
            content["label_free"] = self.label_free
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "StageResult":
        """The opposite of ``to_json``."""
        entries = content["targets"].items()
        without_test = {name: {key: value for key, value in entry.items() if key != "test"} for name, entry in entries}
        targets = {name: Scores.from_json(entry) for name, entry in without_test.items() if entry}
        tests = {name: Scores.from_json(entry["test"]) for name, entry in entries if "test" in entry}
        return cls(content["seconds"], content["steps"], targets, tests, content.get("label_free", {}))


@dataclass(frozen=True)
class Results:
    """Of a run, as ``results.json`` holds them.

    Attributes:
        stages: finished stages in order.
        final: stage whose student is the run's model.
        held_out: number of held-out validation images by target (``evaluation.hold_out``), which score ``tests`` alone.
    """

    stages: dict[str, StageResult]
    final: str
    held_out: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        held_out = {"held_out": self.held_out} if self.held_out else {}
        stages = {name: stage.to_json() for name, stage in self.stages.items()}
        return {"stages": stages, "final": self.final, **held_out}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Results":
        """The opposite of ``to_json``."""
        stages = {name: StageResult.from_json(entry) for name, entry in content["stages"].items()}
        return cls(stages, content["final"], content.get("held_out", {}))


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


def scored_roles(node: Node, final: str, data: DataSets) -> tuple[Role, ...]:
    """Which images a stage's model is scored on: test images tell about the final stage and the baselines only.

    Role "validation" also has the targets without labels, which are predicted only.

    Args:
        node: the stage.
        final: name of the final stage.
        data: the recipe's files.
    """
    if not node.keeps_model:
        return ()
    compared = node.spec.baseline or node.name == final
    return ("validation", "test") if data.test and compared else ("validation",)


def evaluate_stage(node: Node, context: Context, data: DataSets, role: Role = "validation") -> StageScores | None:
    """Score a stage's model on each target's validation or test set, unless the scores are kept already.

    Targets without labels are predicted too, at most some evenly spread images of each: for class shares and pictures.

    Returns:
        None after a requested stop, which a single process obeys between two images.
    """
    processes = context.runtime.processes
    kept = processes.broadcast(_kept_scores(node, context.recipe, data, context.folder, role))
    if kept is not None:
        return StageScores(kept, None)
    fingerprint = _evaluation_fingerprint(node, context.recipe, data, role)
    progress = context.counted(node, "scoring")
    model, _ = load_model(context.folder / node.name / "model")
    context.runtime.place(model, channels_last=context.recipe.training.channels_last)
    recorder = stage_recorder(context, data) if role == "validation" else held_out_recorder(context, data)
    try:
        rule, report = scoring_rule(context.recipe), context.callback.message
        targets = score_sets(model, _sets(data, role), rule, context.runtime, progress, report, recorder.add)
        if role == "validation":
            predict_unlabeled(model, recorder, context.runtime, progress)
    except StopRequested:
        return None
    save_images(recorder, context, node.name, fingerprint)
    if processes.is_main:
        content = {"fingerprint": fingerprint, "targets": {name: s.to_json() for name, s in targets.items()}}
        write_text(context.folder / node.name / _FILES[role], json.dumps(content, indent=1) + "\n")
    return StageScores(targets, model)


def gather_results(nodes: Iterable[Node], recipe: Recipe, data: DataSets, folder: Path) -> Results:
    """Read the stage folders; only finished stages and present scores are listed."""
    nodes = list(nodes)
    stages, final = {}, selected_stage(nodes, recipe, folder)
    for node in nodes:
        done = StageState.read(folder / node.name).done
        if done is None or done.get("fingerprint") != node.fingerprint:
            continue
        kept: dict[Role, dict[str, Scores]] = {
            role: _kept_scores(node, recipe, data, folder, role) or {} for role in scored_roles(node, final, data)
        }
        scored = kept.get("validation", {}), kept.get("test", {})
        label_free = kept_label_free(node, nodes, recipe, folder) or {}
        stages[node.name] = StageResult(round(done["seconds"], 1), done["steps"], *scored, label_free)
    return Results(
        stages, final, {name: len(data.test[name]) for name in held_out_targets(recipe) if name in data.test}
    )


def is_scored(node: Node, final: str, recipe: Recipe, data: DataSets, folder: Path) -> bool:
    """Whether all of a stage's scores of the same files and rule are kept in the run folder."""
    roles = scored_roles(node, final, data)
    return all(_kept_scores(node, recipe, data, folder, role) is not None for role in roles)


def _kept_scores(node: Node, recipe: Recipe, data: DataSets, folder: Path, role: Role) -> dict[str, Scores] | None:
    """Scores of the same model, files and rule from an earlier start."""
    content = read_json(folder / node.name / _FILES[role])
    if content is None or content.get("fingerprint") != _evaluation_fingerprint(node, recipe, data, role):
        return None
    try:
        return {name: Scores.from_json(scores) for name, scores in content["targets"].items()}
    except (KeyError, TypeError, AttributeError):  # damaged: the scores are made again
        return None


def _evaluation_fingerprint(node: Node, recipe: Recipe, data: DataSets, role: Role) -> str:
    """Changes when the model, the scored files or the rule of scoring change."""
    sets = {}
    for target in recipe.targets:
        section = target.validation if role == "validation" else labeled_sections(target).get("test", target.validation)
        if section is not None and target.name in _sets(data, role):
            files = files_fingerprint(_sets(data, role)[target.name])
            sets[target.name] = [section.model_dump(mode="json"), files]
    # Held-out images are told by the fingerprint of the files.
    rule = recipe.evaluation.model_dump(mode="json", exclude_defaults=True, exclude={"hold_out", "label_free", "pad"})
    if scoring_rule(recipe).inference.pad:  # scores without the mark were made before there was padding
        rule["pad"] = True
    return digest([node.fingerprint, rule, sets])


def _sets(data: DataSets, role: Role) -> dict[str, FileDataset]:
    return data.validation if role == "validation" else data.test
