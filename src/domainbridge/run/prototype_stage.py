"""Carrying out a prototype stage: passes over target crops with each student; a stopped stage resumes where it was."""

import time
from contextlib import closing
from pathlib import Path

import torch

from domainbridge.build.batches import prototype_crops
from domainbridge.data.batches import batches
from domainbridge.methods.base import PrototypeStage
from domainbridge.methods.prototypes import PrototypeBank, empty_bank, image_means, running_mean
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.context import Context
from domainbridge.run.graph import Node
from domainbridge.run.prototype_files import save_prototypes
from domainbridge.run.stage_state import load_own_checkpoint, mark_started
from domainbridge.runtime.device import Runtime
from domainbridge.training.checkpoint import Checkpoint, save_checkpoint
from domainbridge.training.loop import Progress
from domainbridge.types import as_unit_float

__all__ = ["collect_prototypes"]


def collect_prototypes(node: Node, context: Context, folder: Path) -> tuple[int, float] | None:
    """Write the prototypes of every student; (batches, seconds), or None after a requested stop."""
    stage = node.spec
    assert isinstance(stage, PrototypeStage)
    state = load_own_checkpoint(folder, node, context.runtime.processes)
    began = time.perf_counter() - (state.seconds if state is not None else 0.0)
    resumed = state.step if state is not None else 0
    bank = PrototypeBank(state.objective["vectors"], state.objective["counts"]) if state is not None else None
    per_student = node.steps // len(stage.students) if node.steps else 0
    for number, student in enumerate(stage.students):
        first = number * per_student
        if resumed >= first + per_student:
            continue  # this student's prototypes are written
        start = max(resumed - first, 0)
        finished = _collect(node, context, folder, student, first, start, bank if start else None, began)
        if not finished:
            return None
    return len(stage.students) * per_student, time.perf_counter() - began


def _collect(
    node: Node,
    context: Context,
    folder: Path,
    student: str,
    first: int,
    start: int,
    bank: PrototypeBank | None,
    began: float,
) -> bool:
    """One student's passes from batch ``start`` on; several processes take turns batch by batch.

    Args:
        node: of the prototype stage.
        context: of the run.
        folder: of the stage.
        student: stage whose student is asked.
        first: batches of the students before.
        start: batches of this student that ``bank`` holds already.
        bank: None for an empty one.
        began: when the stage began, less the seconds of earlier starts.
    """
    recipe, runtime, stage = context.recipe, context.runtime, node.spec
    assert isinstance(stage, PrototypeStage)
    processes = runtime.processes
    model, config = load_model(context.folder / student / "model")
    runtime.place(model, channels_last=recipe.training.channels_last)
    crops = prototype_crops(recipe, stage, context.data)
    shape = (config.spec.num_classes, config.spec.head.channels)
    bank = bank or empty_bank(*shape, runtime.device)
    bank = PrototypeBank(bank.vectors.to(runtime.device), bank.counts.to(runtime.device))
    turns = range(start + processes.rank, len(crops), processes.count)
    with closing(batches(crops, turns, num_workers=runtime.num_workers)) as loaded:
        for position in range(start, len(crops), processes.count):
            means, seen = _means(model, next(loaded, None), crops.batch_size, stage, shape, runtime)
            bank = running_mean(bank, processes.all_gather(means), processes.all_gather(seen), stage.config.max_count)
            done = min(position + processes.count, len(crops))
            if processes.is_main:
                if done == len(crops):
                    save_prototypes(folder, student, bank)
                _report(node, context, first + done, processes.count, began)
            if first + done == node.steps:
                break
            stopping = processes.any(context.stop_requested())
            due = (first + done) % recipe.training.checkpoint_every < processes.count
            if processes.is_main and (stopping or due):
                _save(node, folder, bank, first + done, time.perf_counter() - began)
            if stopping:
                return False
    return True


def _means(
    model: Segmenter,
    image: torch.Tensor | None,
    batch_size: int,
    stage: PrototypeStage,
    shape: tuple[int, int],
    runtime: Runtime,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of one process's batch and which of them count; none without a batch, which the last turn may lack."""
    means = torch.zeros(batch_size, *shape, device=runtime.device)
    seen = torch.zeros(batch_size, shape[0], dtype=torch.bool, device=runtime.device)
    if image is not None:
        unit = as_unit_float(image.to(runtime.device, non_blocking=True))
        means[: len(unit)], seen[: len(unit)] = image_means(model, unit, shape[0], stage.config.min_pixels)
    return means, seen


def _save(node: Node, folder: Path, bank: PrototypeBank, done: int, seconds: float) -> None:
    """Write the state after ``done`` batches."""
    tensors = {"vectors": bank.vectors, "counts": bank.counts}
    save_checkpoint(folder / "state.pt", Checkpoint(done, node.fingerprint, {}, tensors, {}, seconds))
    mark_started(folder, node, done)


def _report(node: Node, context: Context, done: int, turn: int, began: float) -> None:
    """Show progress as often as the recipe says; ``turn``: batches since the last call."""
    if done % context.recipe.training.log_every < turn or done == node.steps:
        context.callback.progress(node, Progress(done, {}, 0.0, (time.perf_counter() - began) / done))
