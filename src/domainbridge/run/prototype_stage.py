"""Carrying out a prototype stage: a pass over target crops with all students; a stopped stage resumes where it was."""

import time
from contextlib import closing
from pathlib import Path

import torch

from domainbridge.build.batches import prototype_crops
from domainbridge.data.loaders import batches
from domainbridge.errors import RunFolderError
from domainbridge.methods.base import PrototypeStage
from domainbridge.methods.prototypes import PrototypeBank, empty_bank, image_means, running_mean
from domainbridge.models.model_folder import load_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.context import Context
from domainbridge.run.graph import Node
from domainbridge.run.prototype_files import save_prototypes
from domainbridge.run.stage_files import CHECKPOINT
from domainbridge.run.stage_state import load_own_checkpoint, mark_started
from domainbridge.runtime.device import Runtime
from domainbridge.training.checkpoint import Checkpoint, save_checkpoint
from domainbridge.training.loop import Progress
from domainbridge.types import as_unit_float

__all__ = ["collect_prototypes"]


def collect_prototypes(node: Node, context: Context, folder: Path) -> tuple[int, float] | None:
    """Write the prototypes of every student; (batches, seconds), or None after a requested stop.

    All students see a batch before the next one is loaded; several processes take turns batch by batch.
    """
    recipe, runtime, stage = context.recipe, context.runtime, node.spec
    assert isinstance(stage, PrototypeStage)
    processes, models, shapes = runtime.processes, {}, {}
    for student in stage.students:
        model, config = load_model(context.folder / student / "model")
        models[student] = runtime.place(model, channels_last=recipe.training.channels_last)
        shapes[student] = (config.spec.num_classes, config.spec.head.channels)
    state = load_own_checkpoint(folder, node, processes)
    start, began = (state.step, time.perf_counter() - state.seconds) if state is not None else (0, time.perf_counter())
    banks = _restored(state, folder, stage.students, runtime) if state is not None else {}
    banks = banks or {student: empty_bank(*shapes[student], runtime.device) for student in stage.students}
    crops = prototype_crops(recipe, stage, context.data)
    context.callback.advance(node, "prototypes", start)
    turns = range(start + processes.rank, len(crops), processes.count)
    pin = runtime.device.type == "cuda"
    with closing(batches(crops, turns, num_workers=runtime.num_workers, pin_memory=pin)) as loaded:
        for position in range(start, len(crops), processes.count):
            image = next(loaded, None)
            for student, model in models.items():
                means, seen = _means(model, image, crops.batch_size, stage, shapes[student], runtime)
                means, seen = processes.all_gather(means), processes.all_gather(seen)
                banks[student] = running_mean(banks[student], means, seen, stage.config.max_count)
            done = min(position + processes.count, len(crops))
            context.callback.advance(node, "prototypes", done)
            _report(node, context, done, processes.count, began)
            if done == len(crops):
                break
            stopping = processes.any(context.stop_requested())
            if processes.is_main and (stopping or done % recipe.training.checkpoint_every < processes.count):
                _save(node, folder, banks, done, time.perf_counter() - began)
            if stopping:
                return None
    for student, bank in banks.items() if processes.is_main else ():
        save_prototypes(folder, student, bank)
    return len(crops), time.perf_counter() - began


def _restored(state: Checkpoint, folder: Path, students: tuple[str, ...], runtime: Runtime) -> dict[str, PrototypeBank]:
    """The prototypes of a half-done stage."""
    tensors = {name: value.to(runtime.device) for name, value in state.objective.items()}
    try:
        return {name: PrototypeBank(tensors[f"{name} vectors"], tensors[f"{name} counts"]) for name in students}
    except KeyError as error:
        raise RunFolderError(
            f"{folder / CHECKPOINT}: does not fit stage {folder.name}, of another version? ({error} is missing) Delete "
            "it to start the stage again"
        ) from error


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


def _save(node: Node, folder: Path, banks: dict[str, PrototypeBank], done: int, seconds: float) -> None:
    """Write the state after ``done`` batches."""
    tensors = {f"{student} vectors": bank.vectors for student, bank in banks.items()}
    tensors |= {f"{student} counts": bank.counts for student, bank in banks.items()}
    save_checkpoint(folder / CHECKPOINT, Checkpoint(done, node.fingerprint, {}, tensors, {}, seconds))
    mark_started(folder, node, done)


def _report(node: Node, context: Context, done: int, turn: int, began: float) -> None:
    """Show progress as often as the recipe says; ``turn``: batches since the last call."""
    if context.runtime.processes.is_main and (done % context.recipe.training.log_every < turn or done == node.steps):
        context.callback.progress(node, Progress(done, {}, 0.0, (time.perf_counter() - began) / done))
