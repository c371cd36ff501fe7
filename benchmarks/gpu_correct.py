"""Whether a GPU gives what the CPU gives: losses, weights, prototypes, classes; and what it gives twice."""

import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_commands import output_of
from benchmarks.gpu_steps import FULL, Size, batches, objectives, train
from domainbridge.errors import TrainingError
from domainbridge.evaluation.inference import class_maps
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.methods.base import Objective
from domainbridge.methods.prototypes import image_means
from domainbridge.models.segmenter import ModelSpec, Segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.memory import enough_memory

__all__ = [
    "classes_as_on_the_cpu",
    "losses_as_on_the_cpu",
    "low_precision",
    "out_of_memory",
    "small_of",
    "the_same_steps_twice",
    "two_processes",
]

_STEPS = 4
_TOLERANCE = 1e-3
"""Relative, of the first step's losses in float32 without TF32: sums in another order differ by about 1e-6."""
_LATER = 2e-2
"""The same of later steps: AdamW's first steps have the sign of a gradient, also of one that rounding made."""
_LOW = 5e-2
"""The same of the first step in bfloat16 or float16 against float32."""


def small_of(size: Size) -> Size:
    """A network without dropout, which draws other numbers on a GPU, and crops that a CPU computes in seconds."""
    spec = ModelSpec("resnet18_v1c", 8, size.spec.num_classes, size.spec.head) if size is FULL else size.spec
    spec = replace(spec, head=replace(spec.head, dropout=0.0))
    return replace(size, spec=spec, crop=min(size.crop, 128), batch=2, recipe="")


def losses_as_on_the_cpu(kind: str, size: Size, runtime: Runtime) -> dict[str, Any]:
    """A few steps in float32 without TF32 on both: differences of the losses, and of what the weights moved."""
    small = small_of(size)
    with _without_tf32():
        (ours, moved), (theirs, expected) = (
            _steps(objectives(small, place.device)[kind](), small, place)
            for place in (runtime, Runtime(torch.device("cpu"), 0))
        )
    first, later = _difference(ours[:1], theirs[:1]), _difference(ours, theirs)
    return {
        "first_step": first,
        "largest": later,
        "weights": float((moved - expected).norm() / expected.norm()),
        "losses": ours[0],
        "within": first <= _TOLERANCE and later <= _LATER,
    }


def low_precision(precision: str, size: Size, runtime: Runtime) -> dict[str, Any]:
    """The first losses of class and distillation steps against those in float32, on the device."""
    small, result = small_of(size), {}
    for kind in ("class", "distillation"):
        exact, low = (
            train(objectives(small, runtime.device)[kind](), small, runtime, 2, each, 1)
            for each in ("float32", precision)
        )
        result[kind] = _difference(low[:1], exact[:1])
    return {**result, "within": max(result.values()) <= _LOW}


def classes_as_on_the_cpu(size: Size, runtime: Runtime) -> dict[str, Any]:
    """Prototypes and predicted classes of a network that has been trained for some steps."""
    small = small_of(size)
    objective = objectives(small, torch.device("cpu"))["source-only"]()
    train(objective, small, Runtime(torch.device("cpu"), 0), 10)
    network = objective.student.eval()
    there = copy.deepcopy(network).to(runtime.device)
    image = next(batches(small, 1)).target_image
    picture = np.ascontiguousarray(np.tile(image[0].permute(1, 2, 0).numpy(), (2, 3, 1)))
    result: dict[str, Any] = {}
    with _without_tf32():
        means = [
            image_means(each, image.to(place).float() / 255, small.spec.num_classes, 1)[0].cpu()
            for each, place in ((there, runtime.device), (network, "cpu"))
        ]
        result["prototypes"] = float((means[0] - means[1]).norm() / means[1].norm())
        for precision in ("float32", "bfloat16"):
            result[f"equal_pixels_{precision}"] = _equal_pixels(network, there, picture, precision, runtime.device)
    return {**result, "within": result["prototypes"] < 1e-3 and result["equal_pixels_float32"] > 0.999}


def the_same_steps_twice(size: Size, runtime: Runtime) -> dict[str, Any]:
    """A few steps twice, as they are and with deterministic algorithms; names of operations that have no such one."""
    result: dict[str, Any] = {}
    for name, exact in (("equal", False), ("equal_with_deterministic_algorithms", True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.use_deterministic_algorithms(exact, warn_only=True)
            try:
                first, again = (_steps(objectives(size, runtime.device)["class"](), size, runtime)[1] for _ in range(2))
            finally:
                torch.use_deterministic_algorithms(False)
        result[name] = torch.equal(first, again)
        result["without_a_deterministic_form"] = sorted(
            {
                str(entry.message).partition(" does not have")[0]
                for entry in caught
                if "deterministic" in str(entry.message)
            }
        )
    return result


def out_of_memory(size: Size, runtime: Runtime) -> dict[str, Any]:
    """The message of a step that cannot fit, and whether the next step can be taken."""
    message = None
    try:
        with enough_memory("a step"):
            torch.empty(2**50, device=runtime.device)
    except TrainingError as error:
        message = str(error)
    small = small_of(size)
    train(objectives(small, runtime.device)["source-only"](), small, runtime, 2)
    return {"message": message, "within": message is not None}


def _steps(objective: Objective, size: Size, runtime: Runtime) -> tuple[list[dict[str, float]], Tensor]:
    """The losses of each step, and all that the weights moved."""
    before = _weights(objective.student)
    losses = train(objective, size, runtime, _STEPS, log_every=1)
    return losses, _weights(objective.student) - before


def _weights(network: Segmenter) -> Tensor:
    return torch.cat([weight.detach().cpu().flatten() for weight in network.parameters()])


def _difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """The largest relative one."""
    return max(
        abs(one[name] - other[name]) / max(abs(other[name]), 1e-3)
        for one, other in zip(ours, theirs, strict=True)
        for name in one
    )


def _equal_pixels(network: Segmenter, there: Segmenter, image: Any, precision: str, device: torch.device) -> float:
    size = image.shape[:2]
    rules = InferenceRule(precision=precision), InferenceRule()
    ours = class_maps(there, [image], [size], rules[0], device)[0].checked().classes.cpu()
    theirs = class_maps(network, [image], [size], rules[1], torch.device("cpu"))[0].checked().classes
    return float((ours == theirs).float().mean())


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def two_processes(precision: str, runtime: Runtime, *, small: bool) -> dict[str, Any]:
    """Steps of two processes against those of one, see ``gpu_two_processes``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "benchmarks.gpu_two_processes", str(out), runtime.device.type, precision, str(int(small))]
        output_of(command)
        result = json.loads(out.read_text())
    tolerance = _LATER if precision == "float32" else 2 * _LOW
    difference = _difference(result.pop("two"), result.pop("one"))
    return {**result, "largest": difference, "within": difference <= tolerance}
