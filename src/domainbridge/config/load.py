"""From the name of a recipe to the plain values of its file, and from a recipe back to YAML."""

import difflib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import yaml

from domainbridge.config.schema import Recipe
from domainbridge.config.yaml_text import Document, YamlError, decoded, parse_yaml
from domainbridge.errors import RecipeError

__all__ = ["dump_recipe", "read_document", "recipe_path", "recipe_text", "shipped_recipes"]

_KINDS = {True: "is a folder", False: "is a pipe or a device, not a file"}


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
    if _is(path, Path.is_file):
        return path
    if reference in shipped:
        return shipped[reference]
    if _is(path, Path.exists):
        raise RecipeError(f"{reference}: {_KINDS[path.is_dir()]}; give the path of a YAML file")
    close = difflib.get_close_matches(reference, shipped, n=2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise RecipeError(
        f"{reference}: no such file, and no shipped recipe of that name.{hint} Shipped are: {', '.join(shipped)}"
    )


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    """Whether the path is of a kind; False for a text that cannot be a path, e.g. one of 300 letters."""
    try:
        return kind(path)
    except OSError:
        return False


def read_document(path: Path) -> Document:
    """The plain values of a YAML file, and their spelling.

    Raises:
        RecipeError: unreadable.
    """
    try:
        return parse_yaml(recipe_text(path))
    except YamlError as error:
        raise RecipeError(f"{path}: {error}") from error


def recipe_text(path: Path) -> str:
    """The text of a recipe's file, in UTF-8 or as its byte order mark says.

    Raises:
        RecipeError: unreadable, or in another encoding.
    """
    try:
        return decoded(path.read_bytes())
    except YamlError as error:
        raise RecipeError(f"{path}: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every key spelled out, defaults too; loading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
