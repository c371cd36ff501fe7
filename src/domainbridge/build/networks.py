"""From a recipe's sections to networks and objectives."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from domainbridge.build.datasets import data_root, image_rule
from domainbridge.build.fine_tuning import check_groups, prepare_trunk
from domainbridge.build.initial_model import init_folder, start_from_init, weights_of_run
from domainbridge.build.label_space import pads, pixel_loss, training_space
from domainbridge.build.paths import below
from domainbridge.build.recipe import training_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.build.target_sections import labeled_sections
from domainbridge.build.teacher_statistics import single_rows
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.errors import ModelError, RecipeError
from domainbridge.methods.adapt_batchnorm import batchnorm_layers
from domainbridge.methods.base import (
    AdaBNStage,
    Objective,
    PixelObjective,
    StageInputs,
    StageSpec,
    TrainingStage,
    trained_objectives,
)
from domainbridge.models.activation_checkpointing import checkpoint_blocks
from domainbridge.models.backbones.padding import leave_out_of_compilation
from domainbridge.models.frozen_trunk import share_frozen_trunk
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.licenses import InitialWeights
from domainbridge.models.model_folder import ModelConfig
from domainbridge.models.pretrained import load_backbone_weights
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.seeding import seed_global_generator

__all__ = [
    "adabn_notes",
    "build_objective",
    "check_network",
    "initial_student",
    "meta_pass",
    "model_config",
    "model_spec",
]

_AWKWARD = ((1, 1), (5, 7), (33, 49), (202, 301))
"""Sizes (height, width) that no stride divides."""


def model_spec(recipe: Recipe) -> ModelSpec:
    """Architecture of every network of the run."""
    model = recipe.model
    return ModelSpec(
        backbone=model.backbone,
        output_stride=model.output_stride,
        num_classes=len(training_space(recipe)),
        head=HeadSpec(**model.head.model_dump()),
    )


def model_config(
    recipe: Recipe, sizes: TrainingSizes | None = None, teachers: tuple[InitialWeights, ...] = ()
) -> ModelConfig:
    """Configuration of the run's model folders; images are read and resized as those of the first target.

    Args:
        recipe: with the network.
        sizes: of the training images, if known.
        teachers: what the teachers began with, where these are other weights than the network's.
    """
    space = training_space(recipe)
    target = recipe.targets[0]
    resize = (target.validation.resize if target.validation else None) or target.resize
    rule = (resize.width, resize.height, resize.keep_ratio, resize.min_side) if resize else None
    return ModelConfig(
        model_spec(recipe),
        space.name,
        space.classes,
        space.colors,
        rule,
        image_rule(target),
        weights_of_run(recipe),
        sizes,
        teachers,
        pads(recipe),
    )


def initial_student(recipe: Recipe, stream: str) -> Segmenter:
    """A network with initial backbone weights and a head drawn from (seed, stream), or the recipe's initial model.

    Raises:
        ModelError: the backbone or its weights cannot be had.
    """
    seed_global_generator(recipe.seed, stream, "initialisation")  # spelled as ever: the spelling decides the draws
    student = build_segmenter(model_spec(recipe), published_init=recipe.fidelity == "published")
    initial_model = init_folder(recipe)
    if initial_model is not None:
        start_from_init(student, initial_model, training_space(recipe).classes)
        return student
    weights = recipe.model.weights
    if weights.startswith("~") or "\\" in weights:
        weights = str(below(data_root(recipe), weights, "model.weights"))
    load_backbone_weights(student.backbone, recipe.model.backbone, weights, data_root(recipe))
    return student


def check_network(recipe: Recipe, stages: Iterable[StageSpec], processes: int = 1, *, initial: bool = True) -> None:
    """Build the recipe's network once, before any stage does.

    Args:
        recipe: complete.
        stages: the recipe's.
        processes: number of processes that share a batch.
        initial: with the file of ``weights: pretrained``, which is fetched if need be.

    Raises:
        ModelError: the backbone or its weights cannot be had, the backbone has no blocks for a stage with activation
            checkpointing, or the network does not take images of every size.
        RecipeError: the head is unknown, the rows of a step are too few and small for BatchNorm, or there is no
            BatchNorm for stage adabn.
    """
    stages = list(stages)
    for stage in stages:
        changed = stage_recipe(recipe, stage)
        if isinstance(stage, TrainingStage) and changed is not recipe:
            check_network(changed, [replace(stage, network=None)], processes, initial=initial)
    stages = [stage for stage in stages if stage_recipe(recipe, stage) is recipe]
    adabn_notes(recipe, stages)
    trainings = [training_config(recipe, stage) for stage in stages if isinstance(stage, TrainingStage)]
    if any(isinstance(stage, AdaBNStage) for stage in stages):
        trainings.append(recipe.training.model_copy(update={"gradient_accumulation_steps": 1}))
    for training in {_of_a_step(each): each for each in trainings}.values():
        student, _ = meta_pass(recipe, training, processes)
        check_groups(student, training)
        pixel_loss(recipe, training, torch.device("cpu"))
    _try_sizes(recipe)
    if not initial and recipe.model.weights == "pretrained":
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": "none"})})
    student = initial_student(recipe, "check")
    if any(training.activation_checkpointing and training.trunk != "frozen" for training in trainings):
        checkpoint_blocks(student.backbone)


def _of_a_step(training: TrainingConfig) -> str:
    """What a step on the meta device depends on."""
    return training.model_dump_json(exclude={"steps", "learning_rate", "weight_decay", "warmup_steps", "log_every"})


def adabn_notes(recipe: Recipe, stages: Iterable[StageSpec]) -> list[str]:
    """What to know before stage adabn, a sentence each; nothing for a recipe without the stage.

    Raises:
        RecipeError: the network has no BatchNorm layer with running statistics.
    """
    if not any(isinstance(stage, AdaBNStage) for stage in stages):
        return []
    with torch.device("meta"):
        network = build_segmenter(model_spec(recipe))
    if not batchnorm_layers(network):
        raise RecipeError(
            f"adabn: {recipe.model.backbone} with head {recipe.model.head.kind} has no BatchNorm layer, so no "
            "statistics can be taken from the target; set adabn: false"
        )
    if not batchnorm_layers(network.backbone):
        return [f"adabn: {recipe.model.backbone} has no BatchNorm layer; only the head takes the target's statistics"]
    return []


def _try_sizes(recipe: Recipe) -> None:
    """Put images of awkward sizes through the network on the meta device: validation images may have any size.

    Raises:
        ModelError: the network takes no images of some sizes, even padded.
    """
    with torch.device("meta"):
        network = build_segmenter(model_spec(recipe)).eval()
    sections = [section for target in recipe.targets for section in labeled_sections(target, oracle=False).values()]
    boxes = [section.resize for section in sections]
    sizes = [(recipe.crop.height, recipe.crop.width), *_AWKWARD, *((box.height, box.width) for box in boxes if box)]
    for height, width in dict.fromkeys(sizes):
        try:
            with torch.no_grad():
                network(torch.empty(1, 3, height, width, device="meta"))
        except NotImplementedError:
            return  # an operation without a form for the meta device: nothing is known
        except (ModelError, RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            raise _refusal(recipe, width, height, error) from error


def _refusal(recipe: Recipe, width: int, height: int, error: Exception) -> ModelError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"model: {recipe.model.backbone} with head {recipe.model.head.kind} takes no images of "
        f"{width}x{height} pixels ({reason}); validation images may have any size. Choose "
        "another model.backbone, such as resnet101_v1c or efficientnet_lite0"
    )


def meta_pass(recipe: Recipe, training: TrainingConfig, processes: int = 1) -> tuple[Segmenter, Tensor]:
    """The student and a batch (or part of one) on the meta device, after a forward pass without any arithmetic.

    The student's trunk is prepared as the keys say.

    Raises:
        ModelError: the backbone cannot be had, takes no images of the crop's size, or does not suit the keys about the
            trunk.
        RecipeError: the rows are too few and small for BatchNorm.
    """
    rows = training.batch_size // training.gradient_accumulation_steps // processes
    alone = ""
    with torch.device("meta"):
        student = build_segmenter(model_spec(recipe)).train()
        prepare_trunk(student, training, recipe.seed, "check")
        image = torch.empty(rows, 3, recipe.crop.height, recipe.crop.width)
    try:
        student(image)
        if single_rows(recipe):
            alone = ", and with statistics per target a teacher's pass may have one row alone"
            student(image[:1])
    except ValueError as error:
        raise RecipeError(
            f"training: {rows} rows of {recipe.crop.width}x{recipe.crop.height} pixels at a time (batch_size "
            f"{training.batch_size}, gradient_accumulation_steps {training.gradient_accumulation_steps}) are too few "
            f"for BatchNorm{alone} ({error}); use a larger batch_size or crop, a smaller "
            "gradient_accumulation_steps or model.output_stride, or fewer processes"
        ) from error
    except NotImplementedError:
        raise
    except (ModelError, RuntimeError, AssertionError, IndexError, TypeError) as error:
        raise _refusal(recipe, recipe.crop.width, recipe.crop.height, error) from error
    return student, image


def build_objective(recipe: Recipe, stage: TrainingStage, student: Segmenter, inputs: StageInputs) -> Objective:
    """The stage's objective, with its cross entropy and compiled or checkpointed networks as the recipe says.

    Raises:
        ModelError: the backbone has no blocks for activation checkpointing.
        RecipeError: the keys about the cross entropy name an unknown class, or the method does not know these keys.
    """
    objective = stage.objective(student, inputs)
    loss = pixel_loss(recipe, training_config(recipe, stage), student.mean.device)
    for part in trained_objectives(objective):
        if loss is None:
            break
        if not isinstance(part, PixelObjective):
            raise RecipeError(
                f"training.class_weights, training.label_smoothing: method {recipe.method} does not know them in stage "
                f"{stage.name}; leave the keys out"
            )
        part.pixel_loss = loss
    if student.trunk_frozen:
        share_frozen_trunk(student, objective.networks)
    elif training_config(recipe, stage).activation_checkpointing:  # a frozen trunk keeps nothing for a backward pass
        for part in trained_objectives(objective):
            checkpoint_blocks(part.student.backbone)
    if recipe.runtime.compile:
        leave_out_of_compilation()
        for module in _compiled_parts(objective.networks):
            module.compile()
    return objective


def _compiled_parts(networks: Iterable[Segmenter]) -> list[nn.Module]:
    """Networks, or the parts of those whose trunk is shared: which images it has seen cannot be traced."""
    parts: dict[int, nn.Module] = {}
    for network in networks:
        for part in (network,) if network.seen is None else (network.backbone, network.head):
            parts[id(part)] = part
    return list(parts.values())
