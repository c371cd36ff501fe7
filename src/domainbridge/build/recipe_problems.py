"""Problems of a recipe that its keys alone cannot show: names, and what the stages of its method make of the values."""

import difflib
from collections.abc import Mapping, Sequence

from domainbridge.build.extended_stages import extensions_of, problems_of_extensions
from domainbridge.build.given_models import problems_of_models
from domainbridge.build.stage_network import problems_of_networks
from domainbridge.config.renamed import renamed_stage
from domainbridge.config.schema import Recipe
from domainbridge.config.spelled import shown
from domainbridge.config.training import TrainingConfig
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.data.layouts.base import LAYOUTS
from domainbridge.methods.base import Method, StageSpec, TrainingStage
from domainbridge.methods.source_only import oracle_stage

__all__ = ["problems_of_names", "problems_of_stages"]


def problems_of_names(recipe: Recipe) -> list[str]:
    """Names of data sets and label spaces that nothing has."""
    problems = []
    datasets = {
        "sources": [source.dataset for source in recipe.sources],
        "targets": [target.dataset for target in recipe.targets],
    }
    for side, names in datasets.items():
        for number, name in enumerate(names):
            if name != "folder" and name not in LAYOUTS.names():
                close = difflib.get_close_matches(name[:80], [*LAYOUTS.names(), "folder"], n=1)
                hint = f"did you mean {close[0]}? For" if close else "for"
                problems.append(
                    f"{side}.{number}.dataset: no data set {shown(name)} is known; {hint} folders "
                    f"of your own, leave the key out; known are {', '.join(LAYOUTS.names())}"
                )
    for key, space in (("label_space", recipe.label_space), ("evaluation.label_space", recipe.evaluation.label_space)):
        if isinstance(space, str) and space not in BUILT_IN:
            problems.append(
                f"{key}: {shown(space)} is unknown; built in are {', '.join(BUILT_IN)}; for classes of your own write "
                "{name: mine, classes: [background, crack]}"
            )
    return problems


def problems_of_stages(
    recipe: Recipe, method: Method, stages: Sequence[StageSpec], settings: Mapping[str, TrainingConfig]
) -> list[str]:
    """What is wrong with keys that depend on the method's stages.

    Args:
        recipe: complete.
        method: the recipe's.
        stages: of the run, extensions included.
        settings: `training` of each stage that trains, by its name.
    """
    trained = [stage for stage in stages if isinstance(stage, TrainingStage)]
    problems = _unknown_stages(recipe, method, trained)
    if recipe.selection != "last" and recipe.evaluation.label_free.images == 0:
        problems.append(
            f"selection: {recipe.selection} is a score without labels, but evaluation.label_free.images is 0; take "
            "more images, or selection: last"
        )
    problems += problems_of_extensions(recipe, trained, method.stage_names[-1])
    problems += problems_of_networks(recipe, trained) + problems_of_models(recipe, stages)
    problems += _problems_of_steps(trained, settings)
    if recipe.runtime.compile and any(training.activation_checkpointing for training in settings.values()):
        problems.append(
            "runtime.compile and training.activation_checkpointing: torch cannot compile blocks that are computed "
            "again without counting their statistics twice; choose one of the two"
        )
    return problems + _problems_of_trunks(settings) + _problems_of_losses(trained, settings)


def _unknown_stages(recipe: Recipe, method: Method, trained: Sequence[TrainingStage]) -> list[str]:
    """Keys below `stages` that name no stage."""
    problems = []
    for name in recipe.stages:
        if name not in (*method.stage_names, oracle_stage().name, *extensions_of(recipe)):
            new = renamed_stage(name)
            known = ", ".join(stage.name for stage in trained)
            hint = f"this stage is now called {new}" if new in method.stage_names else f"this recipe trains {known}"
            problems.append(f"stages.{name}: unknown stage; {hint}")
    return problems


def _problems_of_steps(trained: Sequence[TrainingStage], settings: Mapping[str, TrainingConfig]) -> list[str]:
    """Numbers of steps that are too small, or do not divide the batch."""
    problems = []
    for stage in trained:
        least, key = stage.least_steps or (0, "")
        steps = settings[stage.name].steps
        if steps <= least:
            problems.append(
                f"training.steps: {stage.name}: {steps} steps, but a part of its training begins after {key} {least}; "
                f"take more steps, or a smaller {key}"
            )
    for name, training in settings.items():
        steps = training.gradient_accumulation_steps
        if training.batch_size % steps:
            problems.append(
                f"training.gradient_accumulation_steps: {name}: {steps} does not divide batch_size "
                f"{training.batch_size}"
            )
    return problems


def _problems_of_trunks(settings: Mapping[str, TrainingConfig]) -> list[str]:
    """Keys about the trunk that no stage heeds."""
    fields = TrainingConfig.model_fields
    changed = {
        key
        for key in ("lora_rank", "lora_alpha", "lora_targets", "layer_decay", "drop_path")
        if any(getattr(training, key) != fields[key].default for training in settings.values())
    }
    trunks = {training.trunk for training in settings.values()}
    problems = [
        f"training.{key}: has an effect with trunk: lora alone, which no stage has; set training.trunk: lora, or "
        "leave the key out"
        for key in ("lora_rank", "lora_alpha", "lora_targets")
        if key in changed and "lora" not in trunks
    ]
    return problems + [
        f"training.{key}: has no effect on a frozen trunk; leave the key out, or set another training.trunk"
        for key in ("layer_decay", "drop_path")
        if key in changed and trunks == {"frozen"}
    ]


def _problems_of_losses(trained: Sequence[TrainingStage], settings: Mapping[str, TrainingConfig]) -> list[str]:
    """Keys about the cross entropy in stages that have none."""
    return [
        f"training.{key}: has no effect in {stage.name}, which learns from no labels and from no pseudo-labels; leave "
        "the key out"
        for stage in trained
        for key in ("class_weights", "label_smoothing")
        if not stage.cross_entropy and getattr(settings[stage.name], key)
    ]
