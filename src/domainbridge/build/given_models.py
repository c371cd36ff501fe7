"""Finished models that a run begins with: as teachers, or as the model that is adapted further."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from domainbridge.build.label_space import training_space
from domainbridge.build.paths import below
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import HeadConfig, NetworkConfig
from domainbridge.errors import ModelError, RecipeError
from domainbridge.methods.base import ModelStage, StageSpec, TrainingStage
from domainbridge.models.model_folder import WEIGHTS, read_model_config

__all__ = ["given_model", "largest_teacher", "no_sources", "problems_of_models", "problems_of_sources"]


def given_model(stage: ModelStage) -> Path:
    """The model folder of a stage, relative to the current folder.

    Raises:
        RecipeError: no path of this machine.
    """
    return below(Path(), stage.model, stage.key)


def largest_teacher(recipe: Recipe, stage: TrainingStage) -> Recipe | None:
    """The recipe with the network of the largest finished model among a stage's teachers, for estimates.

    None for teachers that are networks of the run.
    """
    folders = [below(Path(), model, "teachers") for model in stage.teacher_models]
    if not folders:
        return None
    spec = read_model_config(max(folders, key=lambda folder: (folder / WEIGHTS).stat().st_size)).spec
    head = HeadConfig.model_construct(**asdict(spec.head))
    network = NetworkConfig.model_construct(**{**asdict(spec), "weights": "none", "head": head})
    return recipe.model_copy(update={"model": network, "init": None})


def problems_of_models(recipe: Recipe, stages: Iterable[StageSpec]) -> list[str]:
    """Models that are missing or damaged, and those that do not predict the recipe's classes in the same order."""
    problems = []
    for stage in stages:
        if not isinstance(stage, ModelStage):
            continue
        try:
            classes, expected = read_model_config(given_model(stage)).classes, training_space(recipe).classes
        except (ModelError, RecipeError) as error:
            problems.append(f"{stage.key}: {str(error).removeprefix(f'{stage.key}: ')}")
            continue
        if classes != expected:
            odd = [name for name in (*classes, *expected) if (name in classes) != (name in expected)]
            what = f"differ in {', '.join(odd[:8])}" if odd else "have another order"
            problems.append(
                f"{stage.key}: the classes of {stage.model} and those of label_space {what}; the model must predict "
                f"the recipe's classes in the recipe's order: {', '.join(expected[:20])}"
            )
    return problems


def problems_of_sources(recipe: Recipe, need: str) -> list[str]:
    """Sources that a method needs and does not get, or the other way round.

    Args:
        recipe: complete, with few labels of a target among the sources.
        need: "needed", "optional" or "none", as the method says.
    """
    if recipe.sources:
        names = ", ".join(source.name for source in recipe.sources)
        unused = (
            f"sources: method {recipe.method} learns from no labels, found {names}; write sources: [], and leave out "
            "section few of a target"
        )
        return [unused] if need == "none" else []
    if need == "needed":
        return [no_sources(recipe.method)]
    problems = []
    if recipe.crop.scale != (1.0, 1.0):
        problems.append("crop.scale: changes crops of a source, but sources is []; use crop.target_scale")
    if recipe.training.source_augmentation != "none":
        problems.append("training.source_augmentation: changes crops of a source, but sources is []; set none")
    if recipe.sampling.rare_classes:
        problems.append("sampling.rare_classes: counts classes in labels of a source, but sources is []; set false")
    if recipe.selection != "last":
        problems.append(
            f"selection: {recipe.selection} is calibrated on labeled source images, but sources is []; set last"
        )
    return problems


def no_sources(method: str) -> str:
    """What to say of an empty list."""
    return (
        f"sources: expected a list with at least 1 element, found []; method {method} learns from labeled images. To "
        "go on from a finished model without them, use method: source-free"
    )
