"""Carrying out one stage in its folder."""

import gc
import json
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from domainbridge.build.batches import batchnorm_batches, paired_crops
from domainbridge.build.fine_tuning import optimizer_of, prepare_trunk
from domainbridge.build.given_models import given_model
from domainbridge.build.networks import build_objective, initial_student, model_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.build.training_sizes import training_sizes
from domainbridge.build.weight_licenses import teacher_weights
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.data.loaders import batches, loaders_alive
from domainbridge.evaluation.target_score import target_score
from domainbridge.files import write_text
from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.methods.base import (
    AdaBNStage,
    ModelStage,
    PrototypeStage,
    TrainingStage,
    trained_objectives,
)
from domainbridge.models.lora import merge_lora
from domainbridge.models.model_folder import load_model, publish_model, save_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.adabn_stage import adapt_to_target
from domainbridge.run.context import Context, FinishedStages
from domainbridge.run.early_stopping import EarlyStopping
from domainbridge.run.graph import Node
from domainbridge.run.prototype_stage import collect_prototypes
from domainbridge.run.stage_files import clear_stage, sweep
from domainbridge.run.stage_state import StageCheckpoint, identity, mark_started
from domainbridge.runtime.device import crops_of_one_size, forget_peak_memory, peak_memory
from domainbridge.runtime.distributed import averaging_gradients
from domainbridge.runtime.memory import enough_memory
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import TrainConfig, fit
from domainbridge.training.optimizer import Schedule, one_optimizer
from domainbridge.types import Batch

__all__ = ["run_stage", "train_config"]


def run_stage(node: Node, context: Context, *, resume: bool) -> bool:
    """Carry out a stage from its beginning or from its checkpoint, and mark it done.

    Returns:
        True when the stage is done, False after a requested stop.

    Raises:
        TrainingError: a loss was not finite, or a step does not fit into memory.
        RunFolderError: the checkpoint is not this stage's.
    """
    folder = context.folder / node.name
    processes = context.runtime.processes
    if processes.is_main and not resume:
        clear_stage(folder)
        mark_started(folder, node, 0)
    processes.barrier()
    forget_peak_memory(context.runtime.device)
    match node.spec:
        case AdaBNStage():
            work = adapt_to_target
        case ModelStage():
            work = _take_model
        case PrototypeStage():
            work = collect_prototypes
        case _:
            work = _train
    with loaders_alive(), enough_memory(f"stage {node.name}"):
        outcome = work(node, context, folder)
    gc.collect()  # checkpointed and compiled networks are part of cycles: a GPU would hold them during the next stage
    if outcome is None:
        return False
    steps, seconds = outcome
    if processes.is_main:
        peak = peak_memory(context.runtime.device)
        done = {**identity(node), "steps": steps, "seconds": seconds, "peak_bytes": peak}
        write_text(folder / "done.json", json.dumps(done, indent=1) + "\n")
        sweep(folder)
    processes.barrier()
    return True


def _take_model(node: Node, context: Context, folder: Path) -> tuple[int, float] | None:
    """Copy a finished model into the stage's folder."""
    assert isinstance(node.spec, ModelStage)
    began = time.perf_counter()
    if context.runtime.processes.is_main:
        publish_model(given_model(node.spec), folder / "model")
    return 0, time.perf_counter() - began


def _train(node: Node, context: Context, folder: Path) -> tuple[int, float] | None:
    """Train the stage's student; (steps, seconds), or None after a requested stop."""
    recipe, runtime, training, stage = context.recipe, context.runtime, node.training, node.spec
    assert isinstance(stage, TrainingStage)
    assert training is not None
    student = _student(stage, training, context)
    inputs = FinishedStages(context.folder, runtime, channels_last=training.channels_last)
    objective = build_objective(recipe, stage, student, inputs)
    optimizer = one_optimizer([optimizer_of(part.student, training) for part in trained_objectives(objective)])
    scale, early = loss_scale(training.precision, runtime.device), _early_stopping(student, stage, training, context)
    state = StageCheckpoint(node, folder, objective, optimizer, scale, runtime, early)
    start = state.restore()
    for part in trained_objectives(objective):
        part.student = averaging_gradients(part.student, runtime.processes, runtime.device)
    context.callback.training_begins(node, start)
    context.callback.advance(node, "training", start)
    if early is None or early.ended is None:  # else the stage ended, and a process was killed then
        with closing(_batches(stage, training, start, context)) as loaded, crops_of_one_size(runtime.device):
            if not fit(
                objective,
                optimizer,
                loaded,
                train_config(recipe, stage, training, start),
                runtime,
                report=lambda progress: context.callback.progress(node, progress),
                checkpoint=state.save,
                stop_requested=context.stop_requested,
                scale=scale,
                stepped=lambda done: context.callback.advance(node, "training", done),
                look=early.look if early is not None else lambda _: None,
            ):
                return None
    _keep_model(student, early, node, context, folder)
    return (early and early.ended) or training.steps, state.seconds()


def _student(stage: TrainingStage, training: TrainingConfig, context: Context) -> Segmenter:
    """The network that the stage trains, on its device, as it is before the first step."""
    if stage.init is None:
        student = initial_student(stage_recipe(context.recipe, stage), stage.stream)
    else:
        student, _ = load_model(context.folder / stage.init / "model")
    student = context.runtime.place(student.train(), channels_last=training.channels_last)
    prepare_trunk(student, training, context.recipe.seed, stage.stream)
    return student


def _batches(
    stage: TrainingStage, training: TrainingConfig, start: int, context: Context
) -> Generator[Batch, None, None]:
    """The batches of the steps from ``start`` on, this process's rows of them."""
    runtime = context.runtime
    rows = runtime.processes.rows(training.batch_size)
    crops = paired_crops(context.recipe, stage, training.batch_size, context.data, rows)
    pin = runtime.device.type == "cuda"
    return batches(crops, range(start, training.steps), num_workers=runtime.num_workers, pin_memory=pin)


def _keep_model(student: Segmenter, early: EarlyStopping | None, node: Node, context: Context, folder: Path) -> None:
    """Make the trained student the stage's model: the best weights, merged, with the statistics asked for."""
    recipe, training, stage = context.recipe, node.training, node.spec
    assert isinstance(stage, TrainingStage)
    assert training is not None
    is_main = context.runtime.processes.is_main
    if early is not None:
        early.keep_best()
        context.callback.message(f"{node.name}: {early}")
        if is_main:
            early.write(folder)
    merge_lora(student)
    if stage.uses_target and training.adapt_batchnorm == "target":
        _adapt_batchnorm(student, node, stage, training, context)
    if is_main:
        sizes = training_sizes(recipe, stage, context.data.files)
        config = model_config(stage_recipe(recipe, stage), sizes, teacher_weights(recipe, stage))
        save_model(folder / "model", student, config)


def _early_stopping(
    student: Segmenter, stage: TrainingStage, training: TrainingConfig, context: Context
) -> EarlyStopping | None:
    """Of a stage that sees target images, where the recipe asks for it."""
    config = training.early_stopping
    if config is None or not stage.uses_target:
        return None
    targets, runtime, seed = context.data.files.targets, context.runtime, context.recipe.seed
    score = partial(target_score, student, targets, config.images, config.score, runtime, seed)
    return EarlyStopping(config, student, training.steps, score)


def _adapt_batchnorm(
    student: Segmenter, node: Node, stage: TrainingStage, training: TrainingConfig, context: Context
) -> None:
    """By all processes: their BatchNorm layers may share statistics."""
    crops = batchnorm_batches(context.recipe, stage, training.batch_size, context.data, context.runtime)

    def counted() -> Iterator[torch.Tensor]:
        context.callback.advance(node, "statistics", 0)
        for done, crop in enumerate(crops, 1):
            yield crop
            context.callback.advance(node, "statistics", done)

    recompute_bn_stats(student, counted())


def train_config(
    recipe: Recipe, stage: TrainingStage, training: TrainingConfig, start: int, **changes: Any
) -> TrainConfig:
    """How a stage trains from step ``start`` on."""
    values = {
        "precision": training.precision,
        "log_every": training.log_every,
        "checkpoint_every": training.checkpoint_every,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "clip_grad_norm": training.clip_grad_norm,
        "stream": stage.stream,
    }
    schedule = Schedule(training.steps, training.warmup_steps, training.warmup_ratio)
    return TrainConfig(stage.name, recipe.seed, start, schedule, **(values | changes))
