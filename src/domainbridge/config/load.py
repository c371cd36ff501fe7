"""From a YAML file and ``key=value`` words to a Recipe; everything wrong with them is reported at once."""

import copy
import difflib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError, problem_list

__all__ = ["dump_recipe", "load_recipe", "parse_recipe", "recipe_path", "shipped_recipes"]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a float (PyYAML reads 1e-4 as a string), and an error for a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)  # merge keys
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                line = node.value[position][0].start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key {key!r} is written twice")
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


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


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or shipped name and apply ``key.sub=value`` words.

    Raises:
        RecipeError: the file, the words or the values are wrong; all problems are listed.
    """
    path = recipe_path(reference)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML: {error}") from error
    return parse_recipe(tree, overrides, where=str(path))


def parse_recipe(tree: object, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """Validate a tree of plain values.

    Raises:
        RecipeError: as for :func:`load_recipe`.
    """
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: expected keys and values at the top, found {type(tree).__name__}")
    tree = copy.deepcopy(tree)  # the caller's stays as it is
    problems = [problem for word in overrides if (problem := _apply_override(tree, word))]
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        problems += [_in_users_words(detail) for detail in error.errors()]
        raise RecipeError(problem_list(f"{where}: {len(problems)} problem(s)", problems)) from None
    if problems:
        raise RecipeError(problem_list(f"{where}: {len(problems)} problem(s)", problems))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """YAML with every key spelled out, defaults too; loading it gives the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply_override(tree: dict[str, Any], word: str) -> str | None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        return f"{word!r}: expected key=value, e.g. training.steps=500"
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        if isinstance(node, list):
            if not parent.isdigit() or int(parent) >= len(node):
                return f"{key}: {parent!r} is not a position in a list of {len(node)}"
            node = node[int(parent)]
            continue
        if node.get(parent) is None:
            node[parent] = {}
        node = node[parent]
        if not isinstance(node, dict | list):
            return f"{key}: {parent!r} holds a value, not keys"
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        value = text
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            return f"{key}: {last!r} is not a position in a list of {len(node)}"
        node[int(last)] = value
    else:
        node[last] = value
    return None


def _in_users_words(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "recipe"
    if detail["type"] == "extra_forbidden":
        names = _keys_beside(detail["loc"])
        close = difflib.get_close_matches(str(detail["loc"][-1]), names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: is required and absent"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    found = detail["input"]
    shown = "" if isinstance(found, dict | list | BaseModel) else f", found {found!r}"
    return f"{key}: {message}{shown}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Field names of the section that a location's last part was looked for in."""
    section: type[BaseModel] | None = Recipe
    for part in location[:-1]:
        if section is not None and isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields) if section is not None else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section class inside an annotation such as ``tuple[Source, ...]`` or ``Validation | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [section for part in get_args(annotation) if (section := _section_in(part))]
    return found[0] if found else None
