"""From a recipe's sections to networks and objectives: the last place where method configuration is seen."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from domainbridge.adaptation.distillation import Distillation, Teacher
from domainbridge.adaptation.objective import Objective, SourceOnly
from domainbridge.adaptation.self_training import Augmentation, SelfTraining
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import Training
from domainbridge.data.spaces import LabelSpace
from domainbridge.errors import RecipeError
from domainbridge.models.heads import HeadSpec
from domainbridge.models.recomputation import recompute_blocks
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.models.store import ModelCard
from domainbridge.models.weights import load_backbone_weights
from domainbridge.pipeline.datasets import data_root
from domainbridge.pipeline.labels import training_space
from domainbridge.pipeline.plan import Stage
from domainbridge.seeding import seed_global_generator

__all__ = ["build_objective", "check_network", "initial_student", "meta_pass", "model_card", "model_spec"]


def model_spec(recipe: Recipe) -> ModelSpec:
    """Architecture of every network of the run."""
    model = recipe.model
    return ModelSpec(
        backbone=model.backbone,
        output_stride=model.output_stride,
        num_classes=len(training_space(recipe)),
        head=HeadSpec(**model.head.model_dump()),
    )


def model_card(recipe: Recipe) -> ModelCard:
    """What a model folder of the run says; images are resized for it as the first target's are."""
    space: LabelSpace = training_space(recipe)
    target = recipe.targets[0]
    resize = (target.validation.resize if target.validation else None) or target.resize
    rule = (resize.width, resize.height, resize.keep_ratio, resize.min_side) if resize else None
    return ModelCard(model_spec(recipe), space.name, space.classes, space.colors, rule)


def initial_student(recipe: Recipe, stage: str) -> Segmenter:
    """A network with initial backbone weights and a head drawn from (seed, stage).

    Raises:
        ModelError: the backbone or its weights cannot be had.
    """
    seed_global_generator(recipe.seed, stage, "initialisation")
    student = build_segmenter(model_spec(recipe), published_init=recipe.fidelity == "published")
    load_backbone_weights(student.backbone, recipe.model.backbone, recipe.model.weights, data_root(recipe))
    return student


def check_network(recipe: Recipe, processes: int = 1) -> None:
    """Build the recipe's network once, before any stage does.

    Args:
        recipe: complete.
        processes: that share a batch.

    Raises:
        ModelError: the backbone or its weights cannot be had, or it has no blocks to compute again where a stage asks.
        RecipeError: the rows of a step are too few and small for BatchNorm.
    """
    trainings = [recipe.training_of(name) for name in recipe.trained_stages()]
    for training in {(each.batch_size, each.accumulate): each for each in trainings}.values():
        meta_pass(recipe, training, processes)
    student = initial_student(recipe, "check")
    if any(training.recompute for training in trainings):
        recompute_blocks(student.backbone)


def meta_pass(recipe: Recipe, training: Training, processes: int = 1) -> tuple[Segmenter, Tensor]:
    """The student and a batch (or part of one) without content, after a forward pass that costs nothing.

    Raises:
        ModelError: the backbone cannot be had.
        RecipeError: the rows are too few and small for BatchNorm.
    """
    rows = training.batch_size // training.accumulate // processes
    with torch.device("meta"):
        student = build_segmenter(model_spec(recipe)).train()
        image = torch.empty(rows, 3, recipe.crop.height, recipe.crop.width)
    try:
        student(image)
    except ValueError as error:
        raise RecipeError(
            f"training: {rows} rows of {recipe.crop.width}x{recipe.crop.height} pixels at a time (batch_size "
            f"{training.batch_size}, accumulate {training.accumulate}) are too few for BatchNorm ({error}); use a "
            "larger batch_size or crop, a smaller accumulate or model.output_stride, or fewer processes"
        ) from error
    return student, image


def build_objective(
    recipe: Recipe,
    stage: Stage,
    student: Segmenter,
    teachers: Callable[[], tuple[Teacher, ...]],
    over_devices: Callable[[Tensor], Tensor],
) -> Objective:
    """What a stage minimises, its networks compiled or sparing memory as the recipe says.

    Args:
        recipe: complete.
        stage: one that trains.
        student: its network.
        teachers: gives step 2's teachers.
        over_devices: mean over the run's devices.

    Raises:
        ModelError: the backbone has no blocks to compute again.
    """
    objective = _objective(recipe, stage, student, teachers, over_devices)
    if recipe.training_of(stage.name).recompute:
        recompute_blocks(student.backbone)
    if recipe.runtime.compile:
        for network in objective.networks:
            network.compile()
    return objective


def _objective(
    recipe: Recipe,
    stage: Stage,
    student: Segmenter,
    teachers: Callable[[], tuple[Teacher, ...]],
    over_devices: Callable[[Tensor], Tensor],
) -> Objective:
    if stage.kind == "source-only":
        return SourceOnly(student)
    if stage.kind == "cut" or stage.kind == "class":
        return _self_training(recipe, student, stage.kind, over_devices)
    assert stage.kind == "distil"
    return _distillation(recipe, student, teachers())


def _self_training(
    recipe: Recipe, student: Segmenter, path: Literal["cut", "class"], over_devices: Callable[[Tensor], Tensor]
) -> SelfTraining:
    section = recipe.self_training
    return SelfTraining(
        student,
        path,
        area_share=section.area_share,
        confidence=section.confidence,
        ema_decay=section.ema_decay,
        teacher_statistics=section.teacher_statistics,
        ignore_top=section.ignore_top,
        ignore_bottom=section.ignore_bottom,
        augmentation=_augmentation(recipe),
        ignore_counts_as_class=recipe.fidelity == "published",
        over_devices=over_devices if section.confidence_over == "all" else None,
    )


def _distillation(recipe: Recipe, student: Segmenter, teachers: tuple[Teacher, ...]) -> Distillation:
    section = recipe.distillation
    return Distillation(
        student,
        teachers,
        mode=section.mode,
        weights_on=section.weights_on,
        confidence_share=section.confidence_share,
        confidence=section.confidence,
        temperature=section.temperature,
        soft_weight=section.soft_weight,
        augmentation=_augmentation(recipe),
        absent_compete=recipe.fidelity == "published",
    )


def _augmentation(recipe: Recipe) -> Augmentation:
    section = recipe.augmentation
    return Augmentation(
        jitter=section.jitter,
        jitter_probability=section.jitter_probability,
        blur_sigma=section.blur_sigma,
        blur_probability=section.blur_probability,
        vertical_blur=recipe.fidelity == "fixed",
    )
