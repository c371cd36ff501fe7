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

from domainbridge.build.extended_stages import extension_training, extensions_of, with_extensions
from domainbridge.build.given_models import no_sources, problems_of_sources
from domainbridge.build.initial_model import architecture_of_init
from domainbridge.build.recipe_problems import problems_of_names, problems_of_stages
from domainbridge.build.target_sections import with_few_labels
from domainbridge.build.teacher_statistics import problems_of_teacher_statistics
from domainbridge.config.load import read_document, recipe_path
from domainbridge.config.messages import Written, problems_of
from domainbridge.config.overrides import Override, apply_overrides
from domainbridge.config.reference import keys_page
from domainbridge.config.schema import Recipe
from domainbridge.config.spelled import shown
from domainbridge.config.training import StageOverride, TrainingConfig
from domainbridge.config.yaml_text import Document, Location
from domainbridge.errors import ModelError, RecipeError, problem_list
from domainbridge.methods.base import METHODS, Method, StageSpec, TrainingStage
from domainbridge.methods.source_only import oracle_stage

__all__ = [
    "load_recipe",
    "method_of",
    "parse_recipe",
    "recipe_class",
    "recipe_keys_page",
    "stages_of",
    "training_config",
]

_UNKNOWN_KEY = "extra_forbidden"
"""pydantic's type of the error."""
_DEFAULT_METHOD: str = Recipe.model_fields["method"].default


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or shipped name and apply ``key.sub=value`` arguments.

    Raises:
        RecipeError: the file, the arguments or the values are wrong; all problems are listed.
    """
    path = recipe_path(reference)
    document = read_document(path)
    return _parsed(document.tree, overrides, str(path), document)


def parse_recipe(tree: object, overrides: Sequence[str] = ()) -> Recipe:
    """Validate a tree of plain values.

    Raises:
        RecipeError: as for :func:`load_recipe`.
    """
    return _parsed(tree, overrides, "recipe", None)


def _parsed(tree: object, overrides: Sequence[str], where: str, document: Document | None) -> Recipe:
    if not isinstance(tree, dict):
        content = "an empty file" if tree is None and document is not None else shown(tree)
        raise RecipeError(f"{where}: expected keys and values such as 'name: my-run', found {content}")
    try:
        tree = copy.deepcopy(tree)  # the caller's stays as it is
        typed, problems = apply_overrides(tree, overrides)
        whole, unknown = _class_for(tree)
        recipe, errors = _validated(tree, whole)
        listed = problems_of(errors, tree, whole, _spelling(document, typed)) if errors else []
    except RecursionError:
        raise RecipeError(f"{where}: values are nested too deeply, or contain themselves") from None
    problems += unknown + [_of_another_method(place, text, tree) or text for place, text in listed]
    if recipe is not None:
        problems += unknown or (problems_of_names(recipe) + _problems_of_stages(recipe))
        recipe, of_init = _with_init(recipe)
        recipe, of_few = with_few_labels(recipe)
        problems += of_init + of_few + problems_of_teacher_statistics(recipe)
    problems += _problems_of_sources(tree, recipe)
    if recipe is None or problems:
        raise RecipeError(problem_list(f"{where}: {len(problems)} problem(s)", problems))
    return recipe


def _validated(tree: dict[str, Any], whole: type[Recipe]) -> tuple[Recipe | None, list[ErrorDetails]]:
    """The recipe of a tree and all errors; without its unknown keys the rest may still be wrong, or be a recipe."""
    try:
        return whole.model_validate(tree), []
    except ValidationError as error:
        errors = error.errors()
    unknown = [detail["loc"] for detail in errors if detail["type"] == _UNKNOWN_KEY]
    if not unknown:
        return None, errors
    known = copy.deepcopy(tree)
    for place in unknown:
        _remove(known, place)
    try:
        return whole.model_validate(known), errors
    except ValidationError as error:
        seen = [(detail["loc"], detail["type"]) for detail in errors]
        return None, errors + [detail for detail in error.errors() if (detail["loc"], detail["type"]) not in seen]


def _remove(tree: Any, place: tuple[int | str, ...]) -> None:
    """Take a key out; a place inside a value of several kinds has marks in it, which are passed over."""
    node = tree
    for part in place[:-1]:
        if isinstance(node, dict | list) and (part in node if isinstance(node, dict) else isinstance(part, int)):
            node = node[part]  # type: ignore[index]
    if isinstance(node, dict):
        node.pop(place[-1], None)


def _spelling(document: Document | None, typed: Sequence[Override]) -> Written:
    """How the words of the file and of the command line, which comes last, are written."""

    def written(place: Location) -> str | None:
        for start, given in reversed(typed):
            if place[: len(start)] == start:
                return given.written(place[len(start) :])
        return None if document is None else document.written(place)

    return written


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
    others = {name: METHODS[name].config_class for name in METHODS.names() if name != _DEFAULT_METHOD}
    return keys_page(recipe_class(_DEFAULT_METHOD), others)


def method_of(recipe: Recipe) -> Method:
    """The recipe's method with its configuration."""
    method = METHODS[recipe.method]
    config = method.config_class
    values = config.model_construct(**{name: getattr(recipe, name) for name in config.model_fields})
    return method(values, published=recipe.fidelity == "published")


def stages_of(recipe: Recipe) -> list[StageSpec]:
    """The method's stages, in an order in which they can run, then stage oracle if the recipe asks for the stage.

    Extensions (``stages.NAME.extend``) are among them.
    """
    stages = [*method_of(recipe).stages(), *([oracle_stage()] if recipe.oracle else [])]
    return with_extensions(stages, list(extensions_of(recipe).values()))


def training_config(recipe: Recipe, stage: TrainingStage) -> TrainingConfig:
    """`training` with the stage's own values in place; its learning rate follows the stage's factor otherwise.

    An extension has the values of the stage that it extends, but for its steps and warm-up.
    """

    def changes_of(name: str | None) -> dict[str, Any]:
        override = recipe.stages.get(name or "", StageOverride())
        return {key: value for key, value in override if value is not None and key != "extend"}

    first = stage.extends or stage.name
    changes = {"learning_rate": recipe.training.learning_rate * stage.lr_factor, **changes_of(stage.settings_of)}
    training = recipe.training.model_copy(update=changes | changes_of(first))
    steps = recipe.stages[stage.extends].extend if stage.extends is not None else None
    if steps is None:
        return training
    return extension_training(training, steps).model_copy(update=changes_of(stage.name))


def _class_for(tree: dict[str, Any]) -> tuple[type[Recipe], list[str]]:
    """The class to validate with; an unknown method is a problem beside the others."""
    name = tree.get("method", _DEFAULT_METHOD)
    try:
        return recipe_class(name if isinstance(name, str) else _DEFAULT_METHOD), []
    except RecipeError as error:
        return recipe_class(_DEFAULT_METHOD), [str(error)]


def _of_another_method(place: tuple[Any, ...], text: str, tree: dict[str, Any]) -> str | None:
    """What to say of a key that only another method has."""
    if len(place) != 1 or ": unknown key;" not in text:
        return None
    key = place[0]
    others = [name for name in METHODS.names() if key in METHODS[name].config_class.model_fields]
    if not others:
        return None
    chosen = tree.get("method", _DEFAULT_METHOD)
    return f"{key}: is a key of method {' and '.join(others)}, but the recipe's method is {chosen}; leave the key out"


def _problems_of_stages(recipe: Recipe) -> list[str]:
    recipe, _ = with_few_labels(recipe)  # a method that can do without sources has them then
    stages = stages_of(recipe)
    settings = {stage.name: training_config(recipe, stage) for stage in stages if isinstance(stage, TrainingStage)}
    return problems_of_stages(recipe, method_of(recipe), stages, settings)


def _with_init(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the network of its initial model, and what is wrong with that."""
    try:
        return architecture_of_init(recipe)
    except (ModelError, RecipeError) as error:
        return recipe, [f"init: {str(error).removeprefix('init: ')}"]


def _problems_of_sources(tree: dict[str, Any], recipe: Recipe | None) -> list[str]:
    """Sources that the method needs and does not get, or the other way round; also beside other problems."""
    name = tree.get("method", _DEFAULT_METHOD)
    known = isinstance(name, str) and name in METHODS.names()
    need = getattr(METHODS[name], "sources", "needed") if known else "needed"
    if recipe is not None:
        return problems_of_sources(recipe, need)
    return [no_sources(name)] if need == "needed" and tree.get("sources") in ([], ()) else []
