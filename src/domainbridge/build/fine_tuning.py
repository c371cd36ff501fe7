"""From the keys of `training` about the trunk to a network and its optimizer."""

from collections.abc import Iterable
from typing import Any

import torch

from domainbridge.build.recipe import training_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.methods.base import StageSpec, TrainingStage
from domainbridge.models.drop_path import set_drop_path
from domainbridge.models.frozen_trunk import freeze_trunk
from domainbridge.models.lora import add_lora
from domainbridge.models.segmenter import Segmenter
from domainbridge.seeding import torch_generator
from domainbridge.training.optimizer import build_optimizer, parameter_groups

__all__ = ["check_groups", "optimizer_of", "prepare_trunk", "trunk_notes"]

_RATE_KEYS = ("learning_rate", "head_lr_mult", "weight_decay", "layer_decay", "lr_mults", "decay_mults")


def prepare_trunk(student: Segmenter, training: TrainingConfig, seed: int, stream: str) -> None:
    """Freeze what does not train, add low-rank differences, set the stochastic depth; changed in place.

    Args:
        student: at a stage's start, on its device.
        training: of the stage.
        seed: of the run.
        stream: of the stage; both decide on the draws.

    Raises:
        ModelError: the backbone has no layers of the wanted names, or no residual blocks.
    """
    if training.drop_path is not None:
        set_drop_path(student.backbone, training.drop_path)
        student.train(student.training)
    if training.trunk == "frozen":
        freeze_trunk(student)
    elif training.trunk == "lora":
        generator = torch_generator(seed, stream, "lora")
        add_lora(student.backbone, training.lora_rank, training.lora_alpha, training.lora_targets, generator)


def optimizer_of(student: Segmenter, training: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer of a stage, after :func:`prepare_trunk`."""
    return build_optimizer(student, **_rates(training))


def check_groups(student: Segmenter, training: TrainingConfig) -> None:
    """See that every part of a name fits a weight; ``student`` may be on the meta device.

    Raises:
        ModelError: one fits none, or the backbone has no residual blocks.
    """
    parameter_groups(student, **_rates(training))


def _rates(training: TrainingConfig) -> dict[str, Any]:
    """The keys that decide rate and weight decay of every weight, under their own names."""
    return {name: getattr(training, name) for name in _RATE_KEYS}


def trunk_notes(recipe: Recipe, stages: Iterable[StageSpec]) -> list[str]:
    """What to know before a run with a trunk that hardly trains, a sentence each."""
    fresh = [stage for stage in stages if isinstance(stage, TrainingStage) and stage.init is None]
    half = [stage for stage in fresh if training_config(recipe, stage).trunk != "whole"]
    names = [stage.name for stage in half if _random_weights(stage_recipe(recipe, stage))]
    if not names:
        return []
    return [
        f"training.trunk: {', '.join(names)} start from a trunk with random weights (weights: none) that stays as it "
        "is, or nearly; give model.weights or init, or the weights of distillation.student"
    ]


def _random_weights(recipe: Recipe) -> bool:
    return recipe.model.weights == "none" and recipe.init is None
