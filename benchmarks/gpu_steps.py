"""Steps of every kind of stage on one device: speed, memory beside the count of ``plan``, waits of the host."""

import copy
import gc
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.inputs import CLASSES
from domainbridge.build.networks import model_spec
from domainbridge.build.recipe import load_recipe, stages_of, training_config
from domainbridge.methods.base import Objective, TrainingStage, trained_objectives
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.masked_consistency import MaskedConsistency
from domainbridge.methods.online import OnlineDistillation
from domainbridge.methods.prototype_denoising import PrototypeDenoising
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.backbones.padding import leave_out_of_compilation
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import Runtime, crops_of_one_size
from domainbridge.tools.costs import Costs, costs_of
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer, one_optimizer
from domainbridge.types import Batch, Rows

__all__ = ["FULL", "KINDS", "SMALL", "TRANSFORMER", "Size", "batches", "measured_steps", "objectives", "train"]

KINDS = ("source-only", "cut", "class", "distillation")
"""Those of the published method, whose speed is measured."""
_SECONDS = 4.0
"""Of the steps that are timed."""
_STAGES = {"source-only": "source-only", "cut": "r1-cut", "class": "r1-class", "distillation": "r1-distill"}


@dataclass(frozen=True)
class Size:
    """How large the checks are.

    Attributes:
        spec: of the network.
        crop: side of a training crop, pixels.
        batch: rows of a step.
        steps: that are timed, at most.
        image: (height, width) of a scored image.
        images: scored ones.
        recipe: whose memory ``plan`` counts; "": not counted.
    """

    spec: ModelSpec
    crop: int
    batch: int
    steps: int
    image: tuple[int, int]
    images: int
    recipe: str = ""


FULL = Size(ModelSpec("resnet101_v1c", 8, CLASSES), 512, 4, 50, (1024, 2048), 20, "gta-to-cityscapes")
TRANSFORMER = replace(
    FULL,
    spec=model_spec(load_recipe("gta-to-cityscapes-dinov2", [])),
    recipe="gta-to-cityscapes-dinov2",
    image=(512, 1024),
)
SMALL = Size(
    ModelSpec("test_efficientnet", 16, CLASSES, HeadSpec(channels=16, dilations=(1, 2))), 32, 2, 3, (64, 96), 2
)


@lru_cache(maxsize=2)
def _built(spec: ModelSpec) -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(spec)


def objectives(
    size: Size, device: torch.device, place: Callable[[Segmenter], Segmenter] | None = None
) -> dict[str, Callable[[], Objective]]:
    """One of each kind of training stage, with random weights; ``place`` moves a network to the device."""

    def network() -> Segmenter:
        made = copy.deepcopy(_built(size.spec)).train()
        if place is not None:
            return place(made)
        return made.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def bank() -> PrototypeBank:
        vectors = torch.rand(CLASSES, size.spec.head.channels, generator=torch.Generator().manual_seed(1))
        return PrototypeBank(vectors.to(device), torch.ones(CLASSES, device=device))

    options: dict[str, Any] = {"augmentation": AugmentationConfig()}
    # Random networks are sure of nothing: a low threshold lets pseudo-labels count.
    taught = {**options, "confidence": 0.06}

    def distillation(mode: Any) -> Distillation:
        return Distillation(network(), tuple(Teacher(network(), bank()) for _ in range(2)), mode=mode, **options)

    def online() -> OnlineDistillation:
        paths = {"cut": SelfTraining(network(), "cut", **taught), "class": SelfTraining(network(), "class", **taught)}
        return OnlineDistillation(network(), paths, distill_after=0, **options)

    return {
        "source-only": lambda: SourceOnly(network()),
        "cut": lambda: SelfTraining(network(), "cut", **taught),
        "class": lambda: SelfTraining(network(), "class", **taught),
        "distillation": partial(distillation, "hard"),
        "soft distillation": partial(distillation, "soft"),
        "masked consistency": lambda: MaskedConsistency(network(), block_size=size.crop // 8, **taught),
        "prototype denoising": lambda: PrototypeDenoising(network(), **taught),
        "online": online,
    }


def batches(size: Size, count: int, rows: Rows | None = None) -> Iterator[Batch]:
    """The same batch ``count`` times: noisy blobs in the colors of their classes; in page-locked memory for a GPU.

    Args:
        size: of the batch.
        count: of batches.
        rows: of a process; None: all.
    """
    generator = torch.Generator().manual_seed(2)
    label = torch.randint(0, CLASSES, (size.batch, 1, 8, 8), generator=generator)
    label = F.interpolate(label.float(), (size.crop, size.crop)).long()[:, 0]

    def painted() -> Tensor:
        colors = torch.rand(CLASSES, 3, generator=generator)[label].permute(0, 3, 1, 2)
        noise = 0.1 * torch.randn(colors.shape, generator=generator)
        return (255 * (colors + noise)).clamp(0, 255).to(torch.uint8)

    rows = rows or Rows.whole(size.batch)
    mine = slice(rows.first, rows.first + rows.count)
    batch = Batch(painted()[mine], label[mine].to(torch.uint8), painted()[mine], rows)
    yield from [batch.pin_memory() if torch.cuda.is_available() else batch] * count


def train(
    objective: Objective,
    size: Size,
    runtime: Runtime,
    steps: int,
    precision: str = "float32",
    log_every: int = 10**9,
    student: Segmenter | None = None,
) -> list[dict[str, float]]:
    """Steps of the product's loop; the reported losses.

    Args:
        objective: see there.
        size: of the batch.
        runtime: the device.
        steps: how many.
        precision: of forward passes.
        log_every: steps per report.
        student: the objective's, where the objective has a wrapped one.
    """
    losses: list[dict[str, float]] = []

    def report(progress: Progress) -> None:
        losses.append(progress.losses)

    networks = [student] if student is not None else [part.student for part in trained_objectives(objective)]
    optimizer = one_optimizer([build_optimizer(each, 1e-5, 10, 0.01) for each in networks])
    config = TrainConfig("gpu check", 0, 0, Schedule(steps), precision, log_every=log_every)
    data = batches(size, steps, runtime.processes.rows(size.batch))
    scale, ignored = loss_scale(precision, runtime.device), lambda _: None
    with crops_of_one_size(runtime.device):
        assert fit(objective, optimizer, data, config, runtime, report=report, checkpoint=ignored, scale=scale)
    return losses


def measured_steps(
    kind: str, size: Size, runtime: Runtime, precision: str, *, compiled: bool = False
) -> dict[str, Any]:
    """Steps a second, peak memory beside `plan`'s count, waits of the host and kernels of one kind of stage."""
    objective, cuda = objectives(size, runtime.device)[kind](), runtime.device.type == "cuda"
    if compiled:
        leave_out_of_compilation()
        for network in objective.networks:
            network.compile(backend="inductor" if cuda else "aot_eager")
    began = time.perf_counter()
    train(objective, size, runtime, 2, precision)  # the allocator, cuDNN's choices, compilation
    result: dict[str, Any] = {"first_two_steps_seconds": time.perf_counter() - began}
    few = min(5, size.steps)
    began = time.perf_counter()
    train(objective, size, runtime, few, precision)
    count = max(min(int(_SECONDS * few / (time.perf_counter() - began)), size.steps), few)
    gc.collect()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    train(objective, size, runtime, count, precision)  # ends with a report, which waits for the device
    result["steps_per_second"] = count / (time.perf_counter() - began)
    if cuda:
        result["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        result["reserved_mib"] = torch.cuda.max_memory_reserved() / 2**20
    further: dict[str, Callable[[], float]] = {}
    if size.recipe:
        further["counted_mib"] = partial(_counted, size.recipe, kind, precision)
    if cuda:
        further["host_waits_a_step"] = partial(_waits, objective, size, runtime, precision)
        further["kernels_a_step"] = partial(_kernels, objective, size, runtime, precision)
    for name, measure in further.items():
        try:
            result[name] = measure()
        except Exception as error:  # the speed is measured already
            result[name] = f"failed: {type(error).__name__}: {error}"
    return result


@lru_cache(maxsize=8)
def _costs(recipe: str, precision: str) -> tuple[Costs, dict[str, TrainingStage]]:
    loaded = load_recipe(recipe, ["source_only=true", f"training.precision={precision}"])
    stages = {stage.name: stage for stage in stages_of(loaded) if isinstance(stage, TrainingStage)}
    return costs_of(loaded, training_config(loaded, stages["r1-cut"])), stages


def _counted(recipe: str, kind: str, precision: str) -> float:
    """What `plan` counts for such a stage of a recipe, in MiB."""
    costs, stages = _costs(recipe, precision)
    return costs.memory(stages[_STAGES[kind]]) / 2**20


def _waits(objective: Objective, size: Size, runtime: Runtime, precision: str, count: int = 5) -> float:
    """Synchronizations a step, beside the one of the report at the end."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(objective, size, runtime, count, precision)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return max(sum("synchroniz" in str(entry.message) for entry in caught) - 1, 0) / count


def _kernels(objective: Objective, size: Size, runtime: Runtime, precision: str) -> float:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        train(objective, size, runtime, 1, precision)
    return len(profile.events())
