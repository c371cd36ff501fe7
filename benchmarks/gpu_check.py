"""Everything that only a GPU can show, in eight minutes: ``python -m benchmarks gpu`` (``make gpu-check``).

Generated images of the published size pass through the product's own loop, objectives, scoring and checkpoints. Every
check stands alone: one that fails is named in the result, and the others go on. With ``--small --device cpu`` the same
code runs anywhere in seconds, for tests.
"""

import argparse
import json
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_scoring import scoring_rate
from benchmarks.inputs import CLASSES
from domainbridge.build.recipe import load_recipe, stages_of, training_config
from domainbridge.errors import TrainingError
from domainbridge.methods.base import Objective, TrainingStage
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import Runtime, environment, resolve_runtime
from domainbridge.runtime.memory import enough_memory
from domainbridge.tools.costs import costs_of
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer
from domainbridge.types import Batch

__all__ = ["main", "run_checks"]

_TOLERANCE = 0.02
"""Of the losses of 20 steps against the CPU's, relative: rounding grows from step to step."""
_PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Size:
    """How large the checks are."""

    spec: ModelSpec
    crop: int
    batch: int
    steps: int
    image: tuple[int, int]
    images: int


FULL = Size(ModelSpec("resnet101_v1c", 8, CLASSES), 512, 4, 50, (1024, 2048), 20)
SMALL = Size(
    ModelSpec("test_efficientnet", 16, CLASSES, HeadSpec(channels=16, dilations=(1, 2))), 32, 2, 3, (64, 96), 2
)


def objectives(size: Size, device: torch.device) -> dict[str, Callable[[], Objective]]:
    """One of each kind of training stage, with random weights."""

    def network() -> Segmenter:
        torch.manual_seed(0)
        return build_segmenter(size.spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def bank() -> PrototypeBank:
        vectors = torch.rand(CLASSES, size.spec.head.channels, generator=torch.Generator().manual_seed(1))
        return PrototypeBank(vectors.to(device), torch.ones(CLASSES, device=device))

    augmentation = AugmentationConfig()
    return {
        "source-only": lambda: SourceOnly(network().train()),
        "cut": lambda: SelfTraining(network().train(), "cut", augmentation=augmentation),
        "class": lambda: SelfTraining(network().train(), "class", augmentation=augmentation),
        "distillation": lambda: Distillation(
            network().train(), tuple(Teacher(network(), bank()) for _ in range(2)), augmentation=augmentation
        ),
    }


def batches(size: Size, count: int) -> Iterator[Batch]:
    """Batches of noise in page-locked memory where there is a GPU, as the loader gives them."""
    generator = torch.Generator().manual_seed(2)
    shape = (size.batch, 3, size.crop, size.crop)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(2)]
    label = torch.randint(0, CLASSES, (size.batch, *shape[2:]), dtype=torch.uint8, generator=generator)
    batch = Batch(images[0], label, images[1])
    yield from [batch.pin_memory() if torch.cuda.is_available() else batch] * count


def train(
    objective: Objective, size: Size, runtime: Runtime, steps: int, precision: str = "float32", log_every: int = 10**9
) -> list[dict[str, float]]:
    """Steps of the product's loop; the reported losses."""
    losses: list[dict[str, float]] = []

    def report(progress: Progress) -> None:
        losses.append(progress.losses)

    optimizer = build_optimizer(objective.student, 1e-5, 10, 0.01)
    config = TrainConfig("gpu check", 0, 0, Schedule(steps), precision, log_every=log_every)
    scale = loss_scale(precision, runtime.device)
    assert fit(
        objective,
        optimizer,
        batches(size, steps),
        config,
        runtime,
        report=report,
        checkpoint=lambda _: None,
        scale=scale,
    )
    return losses


def steps(kind: str, size: Size, runtime: Runtime, precision: str, *, compiled: bool = False) -> dict[str, Any]:
    """Steps a second, peak memory beside `plan`'s count, waits of the host and kernels of one kind of stage."""
    objective, cuda = objectives(size, runtime.device)[kind](), runtime.device.type == "cuda"
    if compiled:
        for network in objective.networks:
            network.compile(backend="inductor" if cuda else "aot_eager")
    train(objective, size, runtime, max(size.steps // 5, 2), precision)  # warm: allocator, cuDNN's choices, compilation
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    train(objective, size, runtime, size.steps, precision)  # ends with a report, which waits for the device
    result: dict[str, Any] = {"steps_per_second": size.steps / (time.perf_counter() - began)}
    if size is FULL:
        result["counted_mib"] = _counted(kind, precision)
    if cuda:
        result["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        result["host_waits_a_step"] = _waits(objective, size, runtime, precision)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            train(objective, size, runtime, 1, precision)
        result["kernels_a_step"] = len(profile.events())
    return result


def _counted(kind: str, precision: str) -> float:
    """What `plan` counts for such a stage of the published recipe, in MiB."""
    recipe = load_recipe("gta-to-cityscapes", ["source_only=true", f"training.precision={precision}"])
    names = {"source-only": "source-only", "cut": "r1-cut", "class": "r1-class", "distillation": "r1-distill"}
    (stage,) = (s for s in stages_of(recipe) if isinstance(s, TrainingStage) and s.name == names[kind])
    return costs_of(recipe, training_config(recipe, stage)).memory(stage) / 2**20


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


def same_losses(size: Size, runtime: Runtime) -> dict[str, Any]:
    """Twenty class-path steps in float32, against the same ones on the CPU."""
    small = Size(size.spec, 64, 2, 20, size.image, 1)
    device, cpu = runtime.device, torch.device("cpu")
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    ours = train(objectives(small, device)["class"](), small, runtime, 20, log_every=1)
    theirs = train(objectives(small, cpu)["class"](), small, Runtime(cpu, 0), 20, log_every=1)
    torch.backends.cudnn.allow_tf32 = tf32
    differences = [
        abs(one[name] - other[name]) / max(abs(other[name]), 1e-3)
        for one, other in zip(ours, theirs, strict=True)
        for name in one
    ]
    return {"largest_relative_difference": max(differences), "within": max(differences) <= _TOLERANCE}


def exact_resume(size: Size, runtime: Runtime) -> dict[str, Any]:
    """Ten steps at once and the same ten steps again, with deterministic algorithms: equal bit for bit?"""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        first, again = (objectives(size, runtime.device)["class"]() for _ in range(2))
        for objective in (first, again):
            train(objective, size, runtime, 10)
    finally:
        torch.use_deterministic_algorithms(False)
    pairs = zip(first.student.state_dict().values(), again.student.state_dict().values(), strict=True)
    return {"equal": all(torch.equal(one, other) for one, other in pairs)}


def scoring(size: Size, runtime: Runtime, precision: str) -> dict[str, Any]:
    """See :func:`benchmarks.gpu_scoring.scoring_rate`."""
    network = objectives(size, runtime.device)["source-only"]().student
    return scoring_rate(network, size.image, size.images, runtime, precision)


def out_of_memory(size: Size, runtime: Runtime) -> dict[str, Any]:
    """The message of a step that cannot fit."""
    try:
        with enough_memory("a step"):
            torch.empty(2**50, device=runtime.device)
    except TrainingError as error:
        return {"message": str(error)}
    return {"message": None}


def checks(size: Size, runtime: Runtime) -> dict[str, Callable[[], dict[str, Any]]]:
    """All checks by name, the most telling ones first."""
    trained: dict[str, Callable[[], dict[str, Any]]] = {
        f"{kind}, {precision}": partial(steps, kind, size, runtime, precision)
        for precision in _PRECISIONS
        for kind in objectives(size, runtime.device)
    }
    scored = {f"scoring, {precision}": partial(scoring, size, runtime, precision) for precision in _PRECISIONS[:2]}
    return {
        "losses as on the CPU": partial(same_losses, size, runtime),
        "the same steps twice": partial(exact_resume, size, runtime),
        "out of memory": partial(out_of_memory, size, runtime),
        **trained,
        **scored,
        "class, bfloat16, compiled": partial(steps, "class", size, runtime, "bfloat16", compiled=True),
    }


def run_checks(size: Size, runtime: Runtime, minutes: float = 8.0, only: Sequence[str] = ()) -> dict[str, Any]:
    """Carry out the checks, or ``only`` those named; those that would begin after ``minutes`` are named as left out."""
    tf32 = {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32}
    versions = {**environment(runtime), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    began, results = time.monotonic(), {"environment": versions, "tf32": tf32, "size": asdict(size)}
    for name, check in checks(size, runtime).items():
        if only and name not in only:
            continue
        if time.monotonic() - began > 60 * minutes:
            results[name] = {"left out": f"{minutes} minutes were over"}
            continue
        try:
            results[name] = check()
        except Exception as error:  # every fault of a check is a finding
            results[name] = {"failed": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc(limit=-6)}
        print(f"{name}: {json.dumps({k: v for k, v in results[name].items() if k != 'traceback'})}", flush=True)
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def main(given: list[str] | None = None) -> int:
    """The command; the exit status is 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--out", type=Path, help="path to a JSON file for the results")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--small", action="store_true", help="a small network on small images, for tests")
    parser.add_argument("--minutes", type=float, default=8.0, help="no check begins later; default: 8")
    parser.add_argument("--only", action="append", default=[], help="name of a check; may be given several times")
    arguments = parser.parse_args(given)
    size, runtime = SMALL if arguments.small else FULL, resolve_runtime(arguments.device)
    results = run_checks(size, runtime, arguments.minutes, arguments.only)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1, default=str) + "\n")
    return int(any("failed" in result for result in results.values() if isinstance(result, dict)))
