"""A few real steps of each kind of stage on the present device, so that a plan can tell how long the rest takes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from domainbridge.adaptation.distillation import Teacher
from domainbridge.adaptation.prototypes import PrototypeBank, image_means
from domainbridge.config.schema import Recipe
from domainbridge.data.streams import PairedCrops, TargetCrops
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.pipeline.context import Context
from domainbridge.pipeline.datasets import DataSets
from domainbridge.pipeline.networks import build_objective, model_spec
from domainbridge.pipeline.plan import Stage
from domainbridge.pipeline.prototype_stage import target_crops
from domainbridge.pipeline.stages import training_plan, training_stream
from domainbridge.training.loop import Progress, fit
from domainbridge.training.loss_scale import loss_scale
from domainbridge.training.optimiser import build_optimiser
from domainbridge.training.runtime import Runtime, enough_memory, resolve_runtime
from domainbridge.types import as_unit_float

__all__ = ["Probe", "probe"]

_STEPS = 4
"""The first of them warms up and does not count."""


@dataclass(frozen=True)
class Probe:
    """What a step of one kind of stage took.

    Attributes:
        seconds: per step, or per batch of a prototype stage, loading included.
        peak_bytes: allocated on a GPU at the peak; None on a CPU.
    """

    seconds: float
    peak_bytes: int | None


def probe(recipe: Recipe, data: DataSets, stages: list[Stage]) -> dict[str, Probe]:
    """Steps with random weights on the recipe's own files, of the first stage of each kind; nothing is kept.

    Reduced copies and rare class sampling are left out: neither may exist before the run.

    Returns:
        kind of stage -> what was measured.

    Raises:
        TrainingError: a step does not fit into the GPU's memory.
    """
    recipe = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"rare_classes": False})})
    settings = recipe.runtime
    runtime = resolve_runtime(settings.device, settings.threads, settings.workers)
    found: dict[str, Probe] = {}
    with TemporaryDirectory() as folder:
        context = Context(recipe, data, data.source, data.target, Path(folder), runtime, lambda *_: None, lambda: False)
        for stage in stages:
            if stage.kind not in found:
                if runtime.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(runtime.device)
                found[stage.kind] = Probe(_seconds(stage, context), _peak(runtime))
    return found


def _seconds(stage: Stage, context: Context) -> float:
    with enough_memory(f"plan --probe: a step of {stage.name}"):
        return _training_seconds(stage, context) if stage.trains else _prototype_seconds(stage, context)


def _training_seconds(stage: Stage, context: Context) -> float:
    recipe, runtime = context.recipe, context.runtime
    training = recipe.training_of(stage.name)
    student = _network(stage, context)
    objective = build_objective(recipe, stage, student, lambda: _teachers(stage, context), lambda share: share)
    optimiser = build_optimiser(student, training.learning_rate, training.head_multiplier, training.weight_decay)
    stream = training_stream(stage, context, student)
    plan = training_plan(stage, recipe, training.steps - min(_STEPS, training.steps), log_every=1)
    loading = _loading_seconds(stream)
    batch = stream[0]
    taken: list[Progress] = []
    fit(
        objective,
        optimiser,
        iter(lambda: batch, None),
        plan,
        runtime,
        report=taken.append,
        checkpoint=lambda _: None,
        scale=loss_scale(training.precision, runtime.device),
    )
    return _together([progress.seconds for progress in taken], loading, runtime)


def _prototype_seconds(stage: Stage, context: Context) -> float:
    recipe, runtime = context.recipe, context.runtime
    model = _network(stage, context)
    stream = target_crops(stage, context, model)
    loading = _loading_seconds(stream)
    image = as_unit_float(stream[0].to(runtime.device))
    classes = model.head.classifier.out_channels
    seconds = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        means, _ = image_means(model, image, classes, recipe.prototypes.min_pixels)
        means.sum().item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return _together(seconds, loading, runtime)


def _network(stage: Stage, context: Context) -> Segmenter:
    torch.manual_seed(0)
    network = build_segmenter(model_spec(context.recipe)).train(stage.trains)
    return context.runtime.place(network, channels_last=context.recipe.training_of(stage.name).channels_last)


def _teachers(stage: Stage, context: Context) -> tuple[Teacher, ...]:
    teachers = []
    for _ in stage.teachers:
        model = _network(stage, context).eval()
        vectors = torch.rand_like(model.head.classifier.weight[..., 0, 0])
        bank = PrototypeBank(vectors, torch.ones_like(vectors[:, 0])) if stage.prototypes else None
        teachers.append(Teacher(model, bank))
    return tuple(teachers)


def _loading_seconds(stream: PairedCrops | TargetCrops) -> float:
    """Of a batch in one loader."""
    return median(_seconds_of_loads(stream))


def _seconds_of_loads(stream: PairedCrops | TargetCrops) -> Iterator[float]:
    for step in range(_STEPS - 1):
        began = time.perf_counter()
        stream[step % len(stream) if isinstance(stream, TargetCrops) else step]
        yield time.perf_counter() - began


def _together(steps: list[float], loading: float, runtime: Runtime) -> float:
    """Loaders work beside the steps; without them loading comes on top."""
    step = median(steps[1:] or steps)
    return max(step, loading / runtime.workers) if runtime.workers else step + loading


def _peak(runtime: Runtime) -> int | None:
    return torch.cuda.max_memory_allocated(runtime.device) if runtime.device.type == "cuda" else None
