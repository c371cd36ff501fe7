"""A few real steps of each kind of stage on the present device, so that a plan can tell how long the rest takes."""

import gc
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from domainbridge.build.batches import (
    TrainingData,
    batchnorm_batches,
    batchnorm_count,
    oracle_data,
    paired_crops,
    prototype_crops,
    training_data,
)
from domainbridge.build.datasets import DataSets
from domainbridge.build.fine_tuning import optimizer_of, prepare_trunk
from domainbridge.build.networks import build_objective, model_spec
from domainbridge.build.recipe import training_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.schema import Recipe
from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.methods.base import AdaBNStage, PrototypeStage, StageSpec, TrainingStage, trained_objectives
from domainbridge.methods.prototypes import PrototypeBank, image_means
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.runtime.device import Runtime, crops_of_one_size, resolve_runtime
from domainbridge.runtime.memory import enough_memory
from domainbridge.tools.loading import seconds_to_load
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, one_optimizer
from domainbridge.types import Rows, as_unit_float

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


@dataclass(frozen=True)
class _RandomInputs:
    """Random networks and prototypes in the place of earlier stages' results."""

    recipe: Recipe
    runtime: Runtime

    def model(self, stage: str) -> Segmenter:
        """A network with random weights."""
        torch.manual_seed(0)
        network = build_segmenter(model_spec(self.recipe)).eval()
        return self.runtime.place(network, channels_last=self.recipe.training.channels_last)

    def prototypes(self, stage: str, student: str) -> PrototypeBank:
        """Random prototypes."""
        shape = (model_spec(self.recipe).num_classes, self.recipe.model.head.channels)
        vectors = torch.rand(shape, device=self.runtime.device)
        return PrototypeBank(vectors, torch.ones_like(vectors[:, 0]))

    def mean_over_devices(self, value: Tensor) -> Tensor:
        """One device."""
        return value


def probe(recipe: Recipe, data: DataSets, stages: Sequence[StageSpec]) -> dict[str, Probe]:
    """Steps with random weights on the recipe's own files, of the first stage of each kind; nothing is kept.

    Reduced copies and rare class sampling are left out: neither may exist before the run.

    Returns:
        kind of stage -> its measurements.

    Raises:
        TrainingError: a step does not fit into the device's memory.
    """
    settings = recipe.runtime
    runtime = resolve_runtime(settings.device, settings.threads, settings.num_workers)
    training = replace(training_data(recipe, data, data.source, data.target), oracle=oracle_data(recipe, data))
    inputs = _RandomInputs(recipe, runtime)
    probes: dict[str, Probe] = {}
    for stage in stages:
        if stage.kind in probes:
            continue
        gc.collect()  # checkpointed networks of the stage before are part of cycles
        if runtime.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(runtime.device)
        with enough_memory(f"plan --probe: a step of {stage.name}"):
            if isinstance(stage, TrainingStage):
                seconds = _training_seconds(recipe, stage, training, inputs)
            elif isinstance(stage, PrototypeStage):
                seconds = _prototype_seconds(recipe, stage, training, inputs)
            elif isinstance(stage, AdaBNStage):
                seconds = _adabn_seconds(recipe, stage, training, inputs)
            else:
                continue
        peak = torch.cuda.max_memory_allocated(runtime.device) if runtime.device.type == "cuda" else None
        probes[stage.kind] = Probe(seconds, peak)
    return probes


def _training_seconds(recipe: Recipe, stage: TrainingStage, data: TrainingData, inputs: _RandomInputs) -> float:
    runtime, config = inputs.runtime, training_config(recipe, stage)
    student = replace(inputs, recipe=stage_recipe(recipe, stage)).model(stage.name).train()
    prepare_trunk(student, config, recipe.seed, stage.stream)
    objective = build_objective(recipe, stage, student, inputs)
    optimizer = one_optimizer([optimizer_of(part.student, config) for part in trained_objectives(objective)])
    crops = paired_crops(recipe, stage, config.batch_size, data, Rows.whole(config.batch_size))
    loading = seconds_to_load(crops)
    batch = crops[0]
    taken: list[Progress] = []
    parts = config.gradient_accumulation_steps
    with crops_of_one_size(runtime.device):
        fit(
            objective,
            optimizer,
            iter(lambda: batch, None),
            TrainConfig(stage.name, recipe.seed, 0, Schedule(_STEPS), config.precision, 1, _STEPS + 1, parts),
            runtime,
            report=taken.append,
            checkpoint=lambda _: None,
            scale=loss_scale(config.precision, runtime.device),
        )
    return _combined([progress.seconds for progress in taken], loading, runtime)


def _prototype_seconds(recipe: Recipe, stage: PrototypeStage, data: TrainingData, inputs: _RandomInputs) -> float:
    model = inputs.model(stage.name)
    crops = prototype_crops(recipe, stage, data)
    loading = seconds_to_load(crops)
    image = as_unit_float(crops[0].to(inputs.runtime.device))
    seconds = []
    for _ in range(_STEPS):
        began = time.perf_counter()
        means, _ = image_means(model, image, model.head.classifier.out_channels, stage.config.min_pixels)
        means.sum().item()  # waits for the device
        seconds.append(time.perf_counter() - began)
    return _combined([len(stage.students) * each for each in seconds], loading, inputs.runtime)


def _adabn_seconds(recipe: Recipe, stage: AdaBNStage, data: TrainingData, inputs: _RandomInputs) -> float:
    """Of a batch with its loading in this process; loader processes would make that part faster."""
    model = inputs.model(stage.name)
    crops = batchnorm_batches(recipe, stage, recipe.training.batch_size, data, replace(inputs.runtime, num_workers=0))
    seconds = []
    with closing(crops):
        for _ in range(min(_STEPS, batchnorm_count(recipe.training.batch_size, len(data.target)))):
            began = time.perf_counter()
            recompute_bn_stats(model, [next(crops)])
            model.mean.sum().item()  # waits for the device
            seconds.append(time.perf_counter() - began)
    return median(seconds[1:] or seconds)


def _combined(steps: list[float], loading: float, runtime: Runtime) -> float:
    """Loader processes work beside the steps; without them loading comes on top."""
    step = median(steps[1:] or steps)
    return max(step, loading / runtime.num_workers) if runtime.num_workers else step + loading
