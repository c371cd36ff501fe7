"""What a run folder tells: recipe, machine, results, curves, and what was predicted image by image."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from domainbridge.errors import RunFolderError
from domainbridge.evaluation.confusion import Scores
from domainbridge.files import read_json
from domainbridge.run.callbacks.jsonl import read_metrics
from domainbridge.run.image_records import (
    COUNTS_FILE,
    PICTURES_FILE,
    TEST_COUNTS_FILE,
    ImageCounts,
    Picture,
    StageImages,
    read_pictures,
    read_stage_images,
)
from domainbridge.run.results import read_results

__all__ = ["BASELINE", "RunFacts", "StageFacts", "read_run"]

BASELINE = "source-only"
"""Stage that every other one is compared with."""
_BESIDE = (BASELINE, "adabn", "oracle")
"""Stages beside the method: no step of the way to the final model."""


@dataclass(frozen=True)
class StageFacts:
    """A finished stage.

    Attributes:
        name: of the stage.
        seconds, steps: as in results.json.
        scores: by target; empty for a stage that is not scored.
        images: counts per image and class maps; None in folders of versions that did not keep them.
        tests: scores on test images by target; some stages have them.
        test_images: counts per test image; None where they were not kept.
        metrics: lines of metrics.jsonl.
        label_free: target -> name of a score without labels -> value.
        peak_bytes: largest memory, where it was recorded.
    """

    name: str
    seconds: float
    steps: int
    scores: dict[str, Scores]
    images: StageImages | None
    metrics: list[dict[str, Any]]
    tests: dict[str, Scores] = field(default_factory=dict)
    test_images: StageImages | None = None
    label_free: dict[str, dict[str, float]] = field(default_factory=dict)
    peak_bytes: int | None = None

    def counts(self, target: str) -> ImageCounts | None:
        """Of one target's images; None when they were not kept."""
        return self.images.targets.get(target) if self.images is not None else None


@dataclass(frozen=True)
class RunFacts:
    """A run folder.

    Attributes:
        folder: path.
        recipe: plain values of recipe.yaml; empty when it cannot be read.
        environment: of environment.json.
        stages: finished ones, in order.
        final: stage whose student is the run's model.
        pictures: reduced images by target and index.
        source_pixels: labeled pixels of the sources by class; empty when they were not counted.
    """

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    stages: dict[str, StageFacts]
    final: str
    pictures: dict[str, dict[int, Picture]]
    source_pixels: dict[str, int]

    @property
    def name(self) -> str:
        """Of the recipe."""
        return str(self.recipe.get("name", self.folder.name))

    @property
    def predicted_stages(self) -> list[StageFacts]:
        """Stages with a model that was scored or that predicted."""
        return [stage for stage in self.stages.values() if stage.scores or stage.images is not None]

    @property
    def baseline(self) -> StageFacts | None:
        """The source-only stage, once it is finished."""
        return self.stages.get(BASELINE)

    @property
    def latest(self) -> StageFacts | None:
        """The final stage, else the last scored one of the method, else source-only or another one beside."""
        predicted = {stage.name: stage for stage in self.predicted_stages}
        method = [stage for name, stage in predicted.items() if name not in _BESIDE]
        beside = predicted.get(BASELINE) or next(iter(predicted.values()), None)
        return predicted.get(self.final) or (method[-1] if method else beside)

    @property
    def finished(self) -> bool:
        """Whether the final stage is done."""
        return self.final in self.stages

    @property
    def targets(self) -> list[str]:
        """Names, with and without labels."""
        named = [str(target.get("name")) for target in self.recipe.get("targets") or () if isinstance(target, dict)]
        scored = [name for stage in self.stages.values() for name in stage.scores]
        return list(dict.fromkeys([*named, *scored]))


def read_run(folder: Path) -> RunFacts:
    """Read a run folder, also one of an earlier version or of a run that is not finished.

    Raises:
        RunFolderError: no run folder, or its results cannot be read.
    """
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: no such folder; give a run folder such as runs/NAME")
    if not (folder / "results.json").is_file():
        raise RunFolderError(
            f"{folder}: no results.json, so this is no run folder, or its first stage is not finished; give a folder "
            "such as runs/NAME"
        )
    results = read_results(folder)
    stages = {}
    for name, result in results.stages.items():
        place = folder / name
        stages[name] = StageFacts(
            name,
            result.seconds,
            result.steps,
            result.targets,
            read_stage_images(place / COUNTS_FILE, _scores_of(place / "evaluation.json")),
            read_metrics(place / "metrics.jsonl"),
            result.tests,
            read_stage_images(place / TEST_COUNTS_FILE, _scores_of(place / "test-evaluation.json")),
            _label_free(place / "label_free.json"),
            _whole((read_json(place / "done.json") or {}).get("peak_bytes")),
        )
    pixels = (read_json(folder / "data-check.json") or {}).get("source_pixels")
    return RunFacts(
        folder,
        _recipe(folder / "recipe.yaml"),
        read_json(folder / "environment.json") or {},
        stages,
        results.final,
        read_pictures(folder / PICTURES_FILE),
        {str(name): count for name, count in pixels.items() if type(count) is int} if isinstance(pixels, dict) else {},
    )


def _recipe(path: Path) -> dict[str, Any]:
    """Plain values: a recipe of an earlier version may have keys that are no longer known."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _scores_of(path: Path) -> str | None:
    """Fingerprint of the scores in a file, which counts of the same images have too."""
    return (read_json(path) or {}).get("fingerprint")


def _label_free(path: Path) -> dict[str, dict[str, float]]:
    """Scores without labels, by target."""
    targets = (read_json(path) or {}).get("targets")
    if not isinstance(targets, dict):
        return {}
    return {
        str(target): {str(name): float(value) for name, value in values.items() if type(value) in (int, float)}
        for target, values in targets.items()
        if isinstance(values, dict)
    }


def _whole(value: object) -> int | None:
    return value if type(value) is int else None
