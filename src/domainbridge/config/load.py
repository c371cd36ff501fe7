"""From a YAML file and ``key=value`` arguments to a tree of plain values, and from a recipe back to YAML."""

import difflib
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from domainbridge.config.schema import Recipe
from domainbridge.config.yaml_text import parse_value
from domainbridge.errors import RecipeError

__all__ = ["apply_override", "dump_recipe", "recipe_path", "shipped_recipes"]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes inside the package."""
    folder = Path(str(resources.files("domainbridge") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(reference: str) -> Path:
    """The file behind a path or the name of a shipped recipe.

    Raises:
        RecipeError: neither exists; close names are suggested.
    """
    path = Path(reference)
    shipped = shipped_recipes()
    if path.is_file():
        return path
    if reference in shipped:
        return shipped[reference]
    close = difflib.get_close_matches(reference, shipped, n=2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise RecipeError(
        f"{reference}: no such file, and no shipped recipe of that name.{hint} Shipped are: {', '.join(shipped)}"
    )


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every key spelled out, defaults too; loading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def apply_override(tree: dict[str, Any], argument: str) -> str | None:
    """Set one ``key.sub=value`` in a tree, which is changed.

    Returns:
        What is wrong with the argument, or None.
    """
    key, equals, text = argument.partition("=")
    if not equals or not key:
        return f"{argument!r}: expected key=value, e.g. training.steps=500"
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        if isinstance(node, list):
            if not parent.isdigit() or int(parent) >= len(node):
                return f"{key}: {parent!r} is not a position in a list of {len(node)}"
            node = node[int(parent)]
            continue
        if node.get(parent) is None:
            node[parent] = {}  # absent, or empty in the file
        node = node[parent]
        if not isinstance(node, dict | list):
            return f"{key}: {parent!r} holds a value, not keys"
    try:
        value = parse_value(text)
    except ValueError as error:
        return f"{key}: {error}"
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            return f"{key}: {last!r} is not a position in a list of {len(node)}"
        node[int(last)] = value
    else:
        node[last] = value
    return None
