"""The sections of a model card, as rows and sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.files import read_json
from domainbridge.models.licenses import InitialWeights, initial_weights, weights_sentences
from domainbridge.models.model_folder import ModelConfig
from domainbridge.printable import printable
from domainbridge.report.bootstrap import Interval
from domainbridge.report.comparison import StageScore
from domainbridge.report.run_facts import RunFacts

__all__ = [
    "TrainingPart",
    "label_use",
    "license_lines",
    "limits",
    "method_text",
    "package_version",
    "part_licenses",
    "recipe_weights",
    "score_lines",
    "score_rows",
    "training_parts",
]

_METHODS = {
    "ddb": "DDB, deliberated domain bridging (Chen et al., NeurIPS 2022, "
    "[arXiv 2209.07695](https://arxiv.org/abs/2209.07695))",
    "self-training": "self-training on mixed images (DACS, Tranheden et al., WACV 2021, "
    "[arXiv 2007.08702](https://arxiv.org/abs/2007.08702))",
}
_WEAK = 20.0
"""IoU in percent below which a card warns of a class."""
_INTERVALS = (
    "Scores are in percent, on images that no stage learned from. The 95 % intervals say how far other images of the "
    "same kind could move a score (bootstrap over the images). Intervals say nothing about other seeds, and are too "
    "narrow for frames of one video."
)


@dataclass(frozen=True)
class TrainingPart:
    """A domain of the training data.

    Attributes:
        role: "source" or "target".
        name, dataset: as in the recipe.
        images: how many; None in run folders of versions that did not count.
        license: as in the recipe; None where nobody recorded one.
    """

    role: str
    name: str
    dataset: str
    images: int | None
    license: str | None


def training_parts(run: RunFacts) -> list[TrainingPart]:
    """Sources and targets of the recipe, with their numbers of images where they were recorded."""
    counted = (read_json(run.folder / "data-check.json") or {}).get("images")
    counted = counted if isinstance(counted, dict) else {}
    parts = []
    for role, key in (("source", "sources"), ("target", "targets")):
        for tree in run.recipe.get(key) or ():
            if not isinstance(tree, dict):
                continue
            name, images = str(tree.get("name")), (counted.get(key) or {}).get(tree.get("name"))
            known = images if type(images) is int else None
            parts.append(TrainingPart(role, name, str(tree.get("dataset", "folder")), known, tree.get("license")))
    return parts


def label_use(run: RunFacts, stage: str) -> str:
    """Which labels of the targets were used, a sentence."""
    if stage == "oracle":
        return "This stage learned from labels of the targets too."
    labeled = [part.name for part in training_parts(run) if part.role == "source" and part.name.endswith("-few")]
    if labeled:
        return f"A few labels of the target were used too: {', '.join(labeled)}."
    return "Labels of the targets were not used in training."


def method_text(run: RunFacts, stage: str) -> str:
    """Method, stages, steps, seed and network, a line each."""
    method, finished = str(run.recipe.get("method", "ddb")), run.stages[stage]
    trained = ", ".join(f"{each.name} ({each.steps})" for each in run.stages.values())
    lines = [
        f"Method: {_METHODS.get(method, method)}. This is the model of stage {stage}, {finished.steps} steps.",
        f"Stages of the run, with their steps: {trained}. Seed: {run.recipe.get('seed', 0)}.",
    ]
    network, training = run.recipe.get("model") or {}, run.recipe.get("training") or {}
    head = network.get("head") or {}
    lines.append(
        f"Network: {network.get('backbone')} with head {head.get('kind', 'deeplabv2')}, initial weights: "
        f"{Path(str(network.get('weights', 'imagenet'))).name}. Batches of {training.get('batch_size', '?')}."
    )
    return "\n".join(printable(line) for line in lines)


def score_rows(score: StageScore) -> dict[str, Any]:
    """Of one target: its name, mIoU, gain and the IoU of every class, with intervals."""
    gain = score.gain.miou if score.gain is not None and score.gain.miou.known else None
    return {
        "name": score.target,
        "images": score.images,
        "miou": _value(score.scores.miou),
        "gain": None if gain is None else _value(gain, sign=True).replace(" %", "") + " points",
        "rows": [(name, _value(value)) for name, value in zip(score.classes, score.scores.iou, strict=True)],
    }


def _value(interval: Interval, *, sign: bool = False) -> str:
    if not interval.known:
        return "absent"
    form = "+.1f" if sign else ".1f"
    text = f"{interval.value:{form}}"
    return f"{text} ({interval.low:{form}} to {interval.high:{form}})" if np.isfinite(interval.low) else text


def score_lines(run: RunFacts, stage: str, scores: list[StageScore]) -> list[str]:
    """What the intervals mean, test images, and the targets without labels."""
    facts, lines = run.stages[stage], []
    if scores:
        lines.append(_INTERVALS)
    lines += [f"mIoU on test images of {name}: {value:.1f}." for name, value in facts.tests.items()]
    for target in run.targets:
        if target in facts.scores:
            continue
        predicted = facts.label_free.get(target, {}).get("predicted_miou")
        guess = "" if predicted is None else f" A score without labels predicts a mIoU of {predicted:.0f}."
        lines.append(f"{printable(target)} has no labels: nobody has measured the model there.{guess}")
    return lines


def limits(config: ModelConfig, data: list[TrainingPart], scores: list[StageScore]) -> list[str]:
    """What the model is for, and what it is not for, a sentence each."""
    targets = ", ".join(printable(part.name) for part in data if part.role == "target") or "those it learned from"
    lines = [
        f"For images like the target's ({targets}). Images of another camera, place or season can have far worse "
        "results.",
        f"Every pixel gets one of {len(config.classes)} classes, also where the image shows something else.",
    ]
    if config.resize is not None:
        width, height, keep, _ = config.resize
        lines.append(f"Images are resized {'to fit into' if keep else 'to'} {width}x{height} before the network.")
    for score in scores:
        pairs = list(zip(score.classes, score.scores.iou, strict=True))
        weak = [f"{name} ({value.value:.0f} %)" for name, value in pairs if value.known and value.value < _WEAK]
        if weak:
            lines.append(
                f"Weak on {printable(score.target)}, IoU below {_WEAK:.0f} %: {', '.join(map(printable, weak))}."
            )
        absent = [printable(name) for name, value in pairs if not value.known]
        if absent:
            lines.append(
                f"Neither labeled nor predicted on {printable(score.target)}, so not measured: {', '.join(absent)}."
            )
    lines.append("Not tested for uses on which the safety of people depends.")
    return lines


def recipe_weights(run: RunFacts) -> InitialWeights | None:
    """Initial weights as the recipe names them, for model folders that do not say; None for random ones."""
    if run.recipe.get("init") is not None:
        return InitialWeights(f"model {Path(str(run.recipe['init'])).name}", None, "unknown")
    network = run.recipe.get("model") or {}
    return initial_weights(str(network.get("backbone")), str(network.get("weights", "imagenet")))


def part_licenses(
    weights: InitialWeights | None, teachers: Sequence[InitialWeights], data: list[TrainingPart]
) -> list[tuple[str, str | None]]:
    """Part -> its license, None where nobody recorded one."""
    began = [] if weights is None else [(f"initial weights: {weights.source}", weights.license)]
    began += [(f"initial weights of a teacher: {each.source}", each.license) for each in teachers]
    return began + [(f"{part.role} {part.name}", part.license) for part in data]


def license_lines(weights: InitialWeights | None, teachers: Sequence[InitialWeights]) -> list[str]:
    """What comes with the initial weights, its own and those of its teachers; who chooses the license of the model."""
    sentences = [] if weights is None else weights_sentences(weights)
    sentences += [sentence for each in teachers for sentence in weights_sentences(each, of_teacher=True)]
    return [
        *(f"{text[0].upper()}{text[1:]}." for text in dict.fromkeys(sentences)),
        "The license of the model itself is the one at the head of this card; `not-chosen` there means that nobody has "
        "chosen one yet. The licenses of the parts limit the choice.",
    ]


def package_version(run: RunFacts) -> str | None:
    """The version of domainbridge that trained the model."""
    packages = run.environment.get("packages")
    version = packages.get("domainbridge") if isinstance(packages, dict) else None
    return version if isinstance(version, str) else None
