"""``STAGE/label_free.json``: scores of a finished stage's model on the target's training images, without any label."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import evenly_spread
from domainbridge.evaluation.label_free_images import SourceFacts, Walk
from domainbridge.files import digest, read_json, write_text
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.context import Context
from domainbridge.run.graph import Node
from domainbridge.run.stage_status import StageState
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.signals import StopRequested

__all__ = [
    "FILE",
    "LABEL_FREE",
    "kept_label_free",
    "label_free_images",
    "label_free_scores",
    "reference_stage",
    "score_without_labels",
    "source_images",
    "stages_to_score",
    "walk_of",
]

FILE = "label_free.json"
LABEL_FREE: Final = "label-free scoring"
"""Name of the phase in which progress counts images."""
_RULE = 1
"""Counted up when the same model and images would get other scores than before."""

TargetScores = dict[str, dict[str, float]]


def reference_stage(node: Node, nodes: Sequence[Node], folder: Path) -> Node | None:
    """The finished training stage before a stage, whose model ``agreement`` compares with; None without one.

    For the second path of a round that is the first path; for a distilled student, the second of its teachers; for an
    extension, the reference of the stage that it extends.
    """
    names = [other.name for other in nodes]
    before_it = nodes[: names.index(node.spec.extends or node.name)]
    earlier = [other for other in before_it if other.training is not None]
    if not earlier:
        return None
    before = earlier[-1]
    done = StageState.read(folder / before.name).done
    return before if done is not None and done.get("fingerprint") == before.fingerprint else None


def stages_to_score(node: Node, nodes: Sequence[Node], recipe: Recipe, folder: Path) -> list[str]:
    """The stages whose models are read to score a finished stage; none where its scores are kept or not wanted."""
    if not node.keeps_model or recipe.evaluation.label_free.images == 0 or not recipe.sources:
        return []  # labeled source images calibrate the scores
    if kept_label_free(node, nodes, recipe, folder) is not None:
        return []
    before = reference_stage(node, nodes, folder)
    return [node.name] if before is None else [node.name, before.name]


def label_free_images(recipe: Recipe, data: DataSets) -> int:
    """How many images a stage is scored on without labels, those of the sources included."""
    count = recipe.evaluation.label_free.images if recipe.sources else 0
    targets = sum(min(len(files), count) for files in data.targets)
    return targets + min(len(data.source), source_images(count))


def source_images(images: int) -> int:
    """How many labeled source images calibrate the scores of ``images`` target images."""
    return -(-images // 4)


def score_without_labels(node: Node, nodes: Sequence[Node], context: Context, data: DataSets) -> bool:
    """Write the scores of a stage's model, unless those of the same models and rule are kept.

    Returns:
        False after a requested stop, which a single process obeys between two images.
    """
    recipe, folder, processes = context.recipe, context.folder, context.runtime.processes
    count = recipe.evaluation.label_free.images
    read = processes.broadcast(stages_to_score(node, nodes, recipe, folder))
    if not read:
        return True
    before = read[1] if len(read) > 1 else None
    progress = context.counted(node, LABEL_FREE)
    try:
        walk = walk_of(folder, node.name, before, recipe, context.runtime)
        source, targets = label_free_scores(replace(walk, progress=progress), recipe, data, count)
    except StopRequested:
        return False
    if processes.is_main:
        content = {
            "fingerprint": _fingerprint(node, nodes, recipe, folder),
            "reference": before,
            "images": {name: min(len(files), count) for name, files in zip(targets, data.targets, strict=True)},
            "source_images": len(evenly_spread(len(data.source), source_images(count))),
            "source_accuracy": source.accuracy,
            "shifts": source.shifts,
            "targets": targets,
        }
        write_text(folder / node.name / FILE, json.dumps(content, indent=1) + "\n")
        for name, scores in targets.items():
            context.callback.message(f"{node.name}: {name} without labels: {_described(scores, before)}")
    return True


def walk_of(folder: Path, stage: str, before: str | None, recipe: Recipe, runtime: Runtime) -> Walk:
    """The models of a stage and of the one before, if any, ready to walk over images.

    Raises:
        ModelError: a model folder is missing or damaged.
    """

    def placed(name: str) -> Segmenter:
        network, _ = load_model(folder / name / "model")
        return runtime.place(network, channels_last=recipe.training.channels_last).eval()

    reference = None if before is None else placed(before)
    return Walk(placed(stage), reference, len(training_space(recipe)), scoring_rule(recipe), runtime, recipe.seed)


def label_free_scores(walk: Walk, recipe: Recipe, data: DataSets, count: int) -> tuple[SourceFacts, TargetScores]:
    """Facts about the model on source images, and its scores by target, in percent.

    Args:
        walk: the model and what it is compared with.
        recipe: complete.
        data: its files.
        count: images per target.
    """
    source = walk.over_source(data.source, source_images(count))
    targets = {}
    for target, files in zip(recipe.targets, data.targets, strict=True):
        tally = walk.over_target(files, count, source)
        scores = tally.scores(source.classes) | source.predictions(tally)
        targets[target.name] = {name: round(value, 3) for name, value in scores.items()}
    return source, targets


def kept_label_free(node: Node, nodes: Sequence[Node], recipe: Recipe, folder: Path) -> TargetScores | None:
    """A stage's scores of the same models and rule, by target; None without any."""
    content = read_json(folder / node.name / FILE)
    if not node.keeps_model or content is None:
        return None
    if content.get("fingerprint") != _fingerprint(node, nodes, recipe, folder):
        return None
    try:
        return {
            str(target): {str(name): float(value) for name, value in scores.items()}
            for target, scores in content["targets"].items()
        }
    except (KeyError, TypeError, AttributeError, ValueError):  # damaged: the scores are made again
        return None


def _fingerprint(node: Node, nodes: Sequence[Node], recipe: Recipe, folder: Path) -> str:
    """Changes with the models, the images (which are the stage's), their number, or the rule."""
    before = reference_stage(node, nodes, folder)
    scored = recipe.evaluation.model_dump(mode="json", include={"label_space", "map", "exclude_classes", "label_free"})
    return digest([_RULE, node.fingerprint, before and before.fingerprint, scored])


def _described(scores: dict[str, float], before: str | None) -> str:
    parts = [f"agreement with {before} {scores['agreement']:.1f}"] if "agreement" in scores else []
    if "predicted_miou" in scores:
        low, high = scores["predicted_miou_low"], scores["predicted_miou_high"]
        parts.append(f"predicted mIoU {scores['predicted_miou']:.1f} ({low:.1f} to {high:.1f})")
    return ", ".join(parts) or f"confidence {scores['confidence']:.1f}"
