"""A recipe with its method: the method's keys stand in the recipe beside the shared ones and are validated with them.

The recipe's class is composed of :class:`domainbridge.config.schema.Recipe` and the method's own configuration class,
which is found in the registry. So config/ imports no method, and a method of another package is checked like ours.
"""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from domainbridge.config.load import apply_override, recipe_path
from domainbridge.config.messages import of_one_branch, problem_of, renamed_stage
from domainbridge.config.reference import keys_page
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import StageOverride, TrainingConfig
from domainbridge.config.yaml_text import read_yaml
from domainbridge.errors import RecipeError, problem_list
from domainbridge.methods.base import METHODS, Method, StageSpec, TrainingStage

__all__ = [
    "load_recipe",
    "method_of",
    "parse_recipe",
    "recipe_class",
    "recipe_keys_page",
    "stages_of",
    "training_config",
]


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or shipped name and apply ``key.sub=value`` arguments.

    Raises:
        RecipeError: the file, the arguments or the values are wrong; all problems are listed.
    """
    path = recipe_path(reference)
    return parse_recipe(read_yaml(path), overrides, where=str(path))


def parse_recipe(tree: object, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Validate a tree of plain values.

    Raises:
        RecipeError: as for :func:`load_recipe`.
    """
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: expected keys and values at the top, found {type(tree).__name__}")
    tree = copy.deepcopy(tree)  # the caller's stays as it is
    problems = [problem for argument in overrides if (problem := apply_override(tree, argument))]
    keys = [argument.partition("=")[0] for argument in overrides]
    problems += [f"{key}: given {keys.count(key)} times" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    whole, unknown = _class_for(tree)
    problems += unknown
    try:
        recipe = whole.model_validate(tree)
    except ValidationError as error:
        details = error.errors()
        # A list whose element is wrong counts as too short as well.
        follow_ups = [d for d in details if d["type"] == "too_short" and _has_inner(d, details)]
        told = [
            _of_another_method(detail, tree) or problem_of(detail, whole)
            for detail in of_one_branch(details)
            if detail not in follow_ups
        ]
        problems += dict.fromkeys(told)
    else:
        problems += _problems_of_stages(recipe)
    if problems:
        raise RecipeError(problem_list(f"{where}: {len(problems)} problem(s)", problems))
    return recipe


@cache
def recipe_class(method: str) -> type[Recipe]:
    """A recipe's class for a method: the shared keys, then the method's own.

    Raises:
        RecipeError: no such method.
    """
    config = METHODS[method].config_class
    return type("Recipe", (config, Recipe), {"__doc__": Recipe.__doc__, "__module__": __name__})


def recipe_keys_page() -> str:
    """Markdown of every key: a recipe with the default method, then the keys of other methods."""
    default = Recipe.model_fields["method"].default
    others = {name: METHODS[name].config_class for name in METHODS.names() if name != default}
    return keys_page(recipe_class(default), others)


def method_of(recipe: Recipe) -> Method:
    """The recipe's method with its configuration."""
    method = METHODS[recipe.method]
    config = method.config_class
    values = config.model_construct(**{name: getattr(recipe, name) for name in config.model_fields})
    return method(values, published=recipe.fidelity == "published")


def stages_of(recipe: Recipe) -> list[StageSpec]:
    """The method's stages, in an order in which they can run."""
    return method_of(recipe).stages()


def training_config(recipe: Recipe, stage: TrainingStage) -> TrainingConfig:
    """`training` with the stage's own values in place; its learning rate follows the stage's factor otherwise."""
    override = recipe.stages.get(stage.name, StageOverride())
    changes: dict[str, Any] = {"learning_rate": recipe.training.learning_rate * stage.lr_factor}
    return recipe.training.model_copy(update=changes | override.model_dump(exclude_none=True))


def _class_for(tree: dict[str, Any]) -> tuple[type[Recipe], list[str]]:
    """The class to validate with; an unknown method is a problem beside the others."""
    name = tree.get("method", Recipe.model_fields["method"].default)
    if isinstance(name, str):
        try:
            return recipe_class(name), []
        except RecipeError as error:
            return recipe_class(Recipe.model_fields["method"].default), [str(error)]
    return recipe_class(Recipe.model_fields["method"].default), []


def _has_inner(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Whether another problem lies inside this one's value."""
    location = detail["loc"]
    return any(other["loc"][: len(location)] == location != other["loc"] for other in details)


def _of_another_method(detail: ErrorDetails, tree: dict[str, Any]) -> str | None:
    """What to say of a key that only another method has."""
    if detail["type"] != "extra_forbidden" or len(detail["loc"]) != 1:
        return None
    key = detail["loc"][0]
    others = [name for name in METHODS.names() if key in METHODS[name].config_class.model_fields]
    if not others:
        return None
    chosen = tree.get("method", Recipe.model_fields["method"].default)
    return f"{key}: is a key of method {' and '.join(others)}, but the recipe's method is {chosen}; leave the key out"


def _problems_of_stages(recipe: Recipe) -> list[str]:
    """What is wrong with keys that depend on the method's stages."""
    method = method_of(recipe)
    trained = [stage for stage in method.stages() if isinstance(stage, TrainingStage)]
    problems = []
    for name in recipe.stages:
        if name not in method.stage_names:
            new = renamed_stage(name)
            known = ", ".join(stage.name for stage in trained)
            hint = f"this stage is now called {new}" if new in method.stage_names else f"this recipe trains {known}"
            problems.append(f"stages.{name}: unknown stage; {hint}")
    settings = {stage.name: training_config(recipe, stage) for stage in trained}
    for name, training in settings.items():
        steps = training.gradient_accumulation_steps
        if training.batch_size % steps:
            problems.append(
                f"training.gradient_accumulation_steps: {name}: {steps} does not divide batch_size "
                f"{training.batch_size}"
            )
    if recipe.runtime.compile and any(training.activation_checkpointing for training in settings.values()):
        problems.append(
            "runtime.compile and training.activation_checkpointing: torch cannot compile blocks that are computed "
            "again without counting their statistics twice; choose one of the two"
        )
    return problems
