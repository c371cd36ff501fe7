"""Carrying out one stage in its folder; what training stages have in common."""

import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from domainbridge.adaptation.distillation import Teacher
from domainbridge.adaptation.objective import Objective
from domainbridge.adaptation.statistics import retake_statistics
from domainbridge.config.schema import Recipe
from domainbridge.data.streams import PairedCrops, TargetCrops, batches
from domainbridge.errors import RunFolderError
from domainbridge.files import write_text
from domainbridge.models.segmenter import Segmenter
from domainbridge.models.store import load_model, save_model
from domainbridge.pipeline.context import Context
from domainbridge.pipeline.datasets import crop_rule, mixture, rare_classes
from domainbridge.pipeline.metrics import append_metrics, keep_metrics
from domainbridge.pipeline.networks import build_objective, initial_student, model_card
from domainbridge.pipeline.plan import Stage
from domainbridge.pipeline.prototype_stage import collect_prototypes, load_prototypes
from domainbridge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from domainbridge.training.loop import Plan, Progress, fit
from domainbridge.training.loss_scale import LossScale, loss_scale
from domainbridge.training.optimiser import Schedule, build_optimiser
from domainbridge.training.runtime import Runtime, enough_memory
from domainbridge.types import as_unit_float

__all__ = ["run_stage", "training_plan", "training_stream"]

_STATISTICS_CROPS = 1000
"""Means and variances over so many crops no longer change with more; a pass over as many costs seconds on a GPU."""


def run_stage(stage: Stage, context: Context, *, resume: bool) -> bool:
    """Do a stage from its beginning or from its checkpoint, and mark it done.

    Returns:
        True when it is done, False after a requested stop.

    Raises:
        TrainingError: a loss was not finite, or a step does not fit into memory.
        RunFolderError: the checkpoint is not this stage's.
    """
    folder = context.folder / stage.name
    processes = context.runtime.processes
    identity = {"fingerprint": stage.fingerprint, "spec": stage.spec}
    if processes.leader and not resume:
        _empty(folder)
        write_text(folder / "started.json", json.dumps({**identity, "step": 0}))
    processes.wait()
    work = _train if stage.trains else collect_prototypes
    with enough_memory(f"stage {stage.name}"):
        outcome = work(stage, context, folder)
    if outcome is None:
        return False
    steps, seconds = outcome
    if processes.leader:
        done = {**identity, "steps": steps, "seconds": seconds}
        write_text(folder / "done.json", json.dumps(done, indent=1) + "\n")
        for leftover in ("state.pt", "started.json"):
            (folder / leftover).unlink(missing_ok=True)
    processes.wait()
    return True


def _empty(folder: Path) -> None:
    """An empty folder where an old stage may be."""
    if folder.exists():
        (folder / "done.json").unlink(missing_ok=True)  # first: half a folder must not look finished
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _train(stage: Stage, context: Context, folder: Path) -> tuple[int, float] | None:
    recipe, runtime = context.recipe, context.runtime
    training = recipe.training_of(stage.name)
    student = _student(stage, context).train()
    student = runtime.place(student, channels_last=training.channels_last)
    teachers = partial(_teachers, stage, context)
    objective = build_objective(recipe, stage, student, teachers, runtime.processes.mean)
    optimiser = build_optimiser(student, training.learning_rate, training.head_multiplier, training.weight_decay)
    scale = loss_scale(training.precision, runtime.device)
    start, spent = _restore(folder / "state.pt", stage, objective, optimiser, scale, runtime)
    leader = runtime.processes.leader
    if leader:
        keep_metrics(folder / "metrics.jsonl", start)
    began = time.perf_counter()

    def checkpoint(step: int) -> None:
        if not leader:
            return
        parts = (student.state_dict(), objective.state_dict(), optimiser.state_dict())
        seconds = spent + time.perf_counter() - began
        state = Checkpoint(step, stage.fingerprint, *parts, seconds, scale.state_dict() if scale else {})
        save_checkpoint(folder / "state.pt", state)
        progress = {"fingerprint": stage.fingerprint, "spec": stage.spec, "step": step}
        write_text(folder / "started.json", json.dumps(progress))

    def report(progress: Progress) -> None:
        if not leader:
            return
        append_metrics(folder / "metrics.jsonl", progress)
        context.report(stage.name, progress)

    finished = fit(
        objective,
        optimiser,
        batches(
            training_stream(stage, context, student),
            range(start, training.steps),
            workers=runtime.workers,
            pin_memory=runtime.device.type == "cuda",
        ),
        training_plan(stage, recipe, start),
        runtime,
        report=report,
        checkpoint=checkpoint,
        stop_requested=context.stop_requested,
        scale=scale,
    )
    if not finished:
        return None
    if "statistics" in stage.spec["training"]:  # by all processes: their BatchNorm may be a common one
        retake_statistics(student, _target_crops(stage, context, student))
    if leader:
        save_model(folder / "model", student, model_card(recipe))
    return training.steps, spent + time.perf_counter() - began


def training_plan(stage: Stage, recipe: Recipe, start: int, log_every: int | None = None) -> Plan:
    """How a stage trains from step ``start`` on; reports every ``log_every`` steps, by default as the recipe says."""
    training = recipe.training_of(stage.name)
    schedule = Schedule(training.steps, training.warmup_steps, training.warmup_ratio)
    rhythm = (log_every or training.log_every, training.checkpoint_every)
    return Plan(stage.name, recipe.seed, start, schedule, training.precision, *rhythm, training.accumulate)


def training_stream(stage: Stage, context: Context, student: Segmenter) -> PairedCrops:
    """The batches that a stage trains on."""
    recipe = context.recipe
    processes = context.runtime.processes
    batch_size = recipe.training_of(stage.name).batch_size
    with processes.leader_first():
        rare = rare_classes(recipe, context.data, context.folder / "class-counts.npz")
    return PairedCrops(
        context.source,
        context.target,
        crop_rule(recipe, tuple(student.mean.flatten().tolist())),
        batch_size=batch_size,
        seed=recipe.seed,
        stage=stage.name,
        distort_source=stage.kind == "distil" and recipe.distillation.distort_source,
        rare=rare,
        source_mixture=mixture(recipe, context.data.sources),
        target_mixture=mixture(recipe, context.data.targets),
        rows=processes.rows(batch_size),
    )


def _target_crops(stage: Stage, context: Context, student: Segmenter) -> Iterator[torch.Tensor]:
    """At most ``_STATISTICS_CROPS`` crops of the target, each image once if there are enough for a batch.

    All batches are as large as in training: the average over batches would give a smaller last one too much weight.
    """
    recipe, runtime = context.recipe, context.runtime
    rule = crop_rule(recipe, tuple(student.mean.flatten().tolist()))
    batch_size = recipe.training_of(stage.name).batch_size
    passes = -(-batch_size // len(context.target))
    stream = TargetCrops(
        context.target,
        rule,
        batch_size=batch_size,
        passes=passes,
        seed=recipe.seed,
        stage=f"{stage.name} statistics",
        mixture=mixture(recipe, context.data.targets),
    )
    steps = range(min(len(context.target) * passes // batch_size, -(-_STATISTICS_CROPS // batch_size)))
    for image in batches(stream, steps, workers=runtime.workers):
        yield as_unit_float(image.to(runtime.device, non_blocking=True))


def _student(stage: Stage, context: Context) -> Segmenter:
    if stage.init is None:
        return initial_student(context.recipe, stage.name)
    return load_model(context.folder / stage.init / "model")[0]


def _teachers(stage: Stage, context: Context) -> tuple[Teacher, ...]:
    channels_last = context.recipe.training_of(stage.name).channels_last
    teachers = []
    for name in stage.teachers:
        model, _ = load_model(context.folder / name / "model")
        context.runtime.place(model, channels_last=channels_last)
        bank = None
        if stage.prototypes is not None:
            bank = load_prototypes(context.folder / stage.prototypes, name, context.runtime.device)
        teachers.append(Teacher(model, bank))
    return tuple(teachers)


def _restore(
    path: Path,
    stage: Stage,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    scale: LossScale | None,
    runtime: Runtime,
) -> tuple[int, float]:
    """Load the checkpoint if there is one; (next step, seconds spent)."""
    if not runtime.processes.agreed(path.exists()):
        return 0, 0.0
    state = load_checkpoint(path)
    if state.fingerprint != stage.fingerprint:
        raise RunFolderError(f"{path}: belongs to another configuration of {stage.name}; delete it to start again")
    objective.student.load_state_dict(state.student)
    objective.load_state_dict(state.objective)
    optimiser.load_state_dict(state.optimiser)
    if scale is not None:
        scale.load_state_dict(state.scale)
    return state.step, state.seconds
