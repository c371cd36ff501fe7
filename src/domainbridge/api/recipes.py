"""Load a recipe, whatever it is given as."""

from collections.abc import Mapping
from typing import Any

import yaml

from domainbridge.api.models import PathLike
from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError

__all__ = ["recipe_of"]


def recipe_of(
    recipe: Recipe | PathLike | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    data_root: PathLike | None = None,
) -> Recipe:
    """The loaded recipe; see :func:`adapt`.

    Raises:
        RecipeError: keys or values are wrong; all problems are listed.
    """
    changes = dict(overrides or {})
    if data_root is not None:
        changes["data_root"] = str(data_root)
    if isinstance(recipe, Recipe):
        if set(changes) - {"data_root"}:
            raise RecipeError("overrides: a loaded recipe does not change; give its name, its file or its values")
        return recipe.model_copy(update=changes)
    arguments = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in changes.items()]
    arguments = [argument.removesuffix("\n...") for argument in arguments]
    if isinstance(recipe, Mapping):
        return parse_recipe(dict(recipe), arguments)
    return load_recipe(str(recipe), arguments)
