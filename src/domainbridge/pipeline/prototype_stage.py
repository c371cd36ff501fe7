"""Carrying out a prototype stage: one pass after another over the target's crops, for each path's student."""

import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from domainbridge.adaptation.prototypes import PrototypeBank, empty_bank, image_means, running_mean
from domainbridge.data.streams import TargetCrops, batches
from domainbridge.files import write_file
from domainbridge.models.segmenter import Segmenter
from domainbridge.models.store import load_model
from domainbridge.pipeline.context import Context
from domainbridge.pipeline.datasets import crop_rule
from domainbridge.pipeline.plan import Stage
from domainbridge.training.loop import Progress
from domainbridge.types import as_unit_float

__all__ = ["collect_prototypes", "load_prototypes", "save_prototypes", "target_crops"]

_REPORT_EVERY = 50


def load_prototypes(folder: Path, path: str, device: torch.device) -> PrototypeBank:
    """One path's prototypes from a prototype stage's folder."""
    tensors = load_file(folder / f"{path}.safetensors", device=str(device))
    return PrototypeBank(tensors["vectors"], tensors["counts"])


def save_prototypes(folder: Path, path: str, bank: PrototypeBank) -> None:
    """Write one path's prototypes atomically."""
    tensors = {"vectors": bank.vectors.cpu(), "counts": bank.counts.cpu()}
    write_file(folder / f"{path}.safetensors", lambda temporary: save_file(tensors, temporary))


def collect_prototypes(stage: Stage, context: Context, folder: Path) -> tuple[int, float] | None:
    """Write both paths' prototypes; (batches, seconds), or None after a requested stop."""
    began = time.perf_counter()
    steps = 0
    for teacher in stage.teachers:
        bank = _prototypes_of(teacher, stage, context, steps, began)
        if bank is None:
            return None
        if context.runtime.processes.leader:
            save_prototypes(folder, teacher, bank)
        steps += stage.steps // len(stage.teachers) if stage.steps else 0
    return steps, time.perf_counter() - began


def target_crops(stage: Stage, context: Context, model: Segmenter) -> TargetCrops:
    """The crops that a path's prototypes are made of."""
    recipe = context.recipe
    return TargetCrops(
        context.target,
        crop_rule(recipe, tuple(model.mean.flatten().tolist())),
        batch_size=recipe.training.batch_size,
        passes=recipe.prototypes.passes,
        seed=recipe.seed,
        stage=stage.name,
    )


def _prototypes_of(teacher: str, stage: Stage, context: Context, steps: int, began: float) -> PrototypeBank | None:
    """One pass after another over the target's crops; several processes take turns batch by batch."""
    recipe, runtime = context.recipe, context.runtime
    processes, section = runtime.processes, recipe.prototypes
    model, card = load_model(context.folder / teacher / "model")
    runtime.place(model, channels_last=recipe.training.channels_last)
    stream = target_crops(stage, context, model)
    classes, channels = card.spec.num_classes, card.spec.head.channels
    bank = empty_bank(classes, channels, runtime.device)
    own = iter(batches(stream, range(processes.rank, len(stream), processes.count), workers=runtime.workers))
    for first in range(0, len(stream), processes.count):
        means = torch.zeros(stream.batch_size, classes, channels, device=runtime.device)
        seen = torch.zeros(stream.batch_size, classes, dtype=torch.bool, device=runtime.device)
        image = next(own, None)  # None: in the last turn there may be fewer batches than processes
        if image is not None:
            unit = as_unit_float(image.to(runtime.device, non_blocking=True))
            means[: len(unit)], seen[: len(unit)] = image_means(model, unit, classes, section.min_pixels)
        bank = running_mean(bank, processes.gathered(means), processes.gathered(seen), section.max_count)
        done = steps + min(first + processes.count, len(stream))
        if processes.leader and (done % _REPORT_EVERY < processes.count or done == stage.steps):
            context.report(stage.name, Progress(done, {}, 0.0, (time.perf_counter() - began) / done))
        if processes.any(context.stop_requested()):
            return None
    return bank
