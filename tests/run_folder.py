"""A run folder as a run would leave it, with predictions that are right on a chosen share of the pixels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from domainbridge.data.dataset import FileDataset
from domainbridge.data.label_spaces import label_space
from domainbridge.evaluation.confusion import pixel_counts, scores
from domainbridge.evaluation.evaluate import ScoredImage, ScoringRule
from domainbridge.run.image_recorder import ImageRecorder
from domainbridge.types import Sample
from tiny_domain import CLASSES as NAMES
from tiny_domain import draw_scene, paint_scene

CLASSES = tuple(NAMES)
IMAGES = 12


def write_run(
    folder: Path,
    stages: Mapping[str, float],
    *,
    missing: Mapping[str, str] | None = None,
    only: Mapping[str, str] | None = None,
    weak: Mapping[str, str] | None = None,
    seed: int = 0,
    final: str | None = None,
    prefix: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder with a labeled target ``fog`` and a target ``rain`` without labels.

    Args:
        folder: to write.
        stages: name -> share of the pixels that are predicted right; the others get a random class.
        missing: stage -> class that is never predicted.
        only: stage -> the one class that is predicted.
        weak: stage -> class that is predicted at random.
        seed: of the recipe.
        final: the run's last stage; default: the last of ``stages``.
        prefix: of the names of images and classes.
        recipe: further keys.
    """
    space = label_space("scene", [prefix + name for name in NAMES])
    files = {name: _files(folder / name, prefix, labeled=name == "fog") for name in ("fog", "rain")}
    rule = ScoringRule(space, np.concatenate([np.arange(3), np.full(253, 255)]).astype(np.uint8))
    targets = [{"name": name} for name in files]
    tree = {"name": "tiny", "seed": seed, "method": "ddb", "targets": targets, **(recipe or {})}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    (folder / "environment.json").write_text(json.dumps({"device": "cpu", "packages": {"domainbridge": "0.1.0"}}))
    pixels = dict(zip(space.classes, (500, 200, 300), strict=True))
    (folder / "data-check.json").write_text(json.dumps({"passed": "x", "source_pixels": pixels}))
    results: dict[str, Any] = {"stages": {}, "final": final or list(stages)[-1]}
    for number, (stage, right) in enumerate(stages.items()):
        place = folder / stage
        place.mkdir(exist_ok=True)
        recorder = ImageRecorder(rule, files)
        wanted = {
            key: NAMES.index(value[stage]) for key, value in _chosen(missing, only, weak).items() if stage in value
        }
        total = _predict(recorder, right, wanted, np.random.default_rng([seed, number]))
        recorder.write_counts([recorder.rows], place / "evaluation-images.npz", f"scores of {stage}")
        recorder.write_pictures([recorder.rows], folder / "validation-images.npz", "files")
        fog = scores(total[:3], space.classes, IMAGES, pixels=int(total.sum())).to_json()
        (place / "evaluation.json").write_text(
            json.dumps({"fingerprint": f"scores of {stage}", "targets": {"fog": fog}})
        )
        lines = [_metrics(step, stage) for step in (10, 20, 30)]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (place / "done.json").write_text(json.dumps({"peak_bytes": 3 * 2**30}))
        results["stages"][stage] = {"seconds": 65.0, "steps": 30, "targets": {"fog": fog}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def _chosen(*given: Mapping[str, str] | None) -> dict[str, Mapping[str, str]]:
    return {key: value or {} for key, value in zip(("missing", "only", "weak"), given, strict=True)}


def _files(root: Path, prefix: str, *, labeled: bool) -> FileDataset:
    images = tuple(root / f"{prefix.replace('/', '')}{number:03}.png" for number in range(IMAGES))
    return FileDataset("files", images, images if labeled else None, None)


def _predict(
    recorder: ImageRecorder, right: float, wanted: Mapping[str, int], generator: np.random.Generator
) -> torch.Tensor:
    """Record predictions of both targets; the pixel counts of ``fog``."""
    total = torch.zeros(4, 4, dtype=torch.int64)
    scenes = np.random.default_rng(9)
    for target in ("fog", "rain"):
        for index in range(IMAGES):
            label = draw_scene(scenes)
            image = paint_scene(label, scenes, foggy=True)
            share = np.clip(right + generator.normal(0, 0.05), 0, 1)
            predicted = np.where(generator.random(label.shape) < share, label, generator.integers(0, 3, label.shape))
            if "weak" in wanted:
                predicted[label == wanted["weak"]] = generator.integers(0, 3, int((label == wanted["weak"]).sum()))
            if "missing" in wanted:
                predicted[predicted == wanted["missing"]] = (wanted["missing"] + 1) % 3
            if "only" in wanted:
                predicted[:] = wanted["only"]
            truth = label if target == "fog" else None
            tensor = torch.from_numpy(predicted.astype(np.uint8))
            known = torch.from_numpy(label).long() if truth is not None else torch.full(label.shape, 255)
            counts = pixel_counts(known, tensor.long(), 3)
            recorder.add(target, ScoredImage(index, Sample(image, truth, f"{index}"), tensor, counts))
            if truth is not None:
                total += counts
    return total


def _metrics(step: int, stage: str) -> dict[str, Any]:
    share = {} if stage == "source-only" else {"pseudo_label_share": step / 100}
    return {"step": step, "losses": {"source": 1 / step}, "lr": 1e-4, "seconds": 0.5, "metrics": share, "data_share": 0}
