"""Paths as people write them in recipes: with ``~`` for the home folder, or with the backslashes of Windows."""

from pathlib import Path

from domainbridge.errors import RecipeError

__all__ = ["PACKAGED", "below"]

PACKAGED = "package:"
"""Beginning of a path to data that are shipped with us: ``package:quickstart``."""


def below(root: Path, path: str, where: str) -> Path:
    """A recipe's path, relative to ``root`` unless it is absolute or begins with ``~`` or ``package:``.

    A path with backslashes that does not exist is read with slashes, if that exists.

    Args:
        root: folder that relative paths start from.
        path: as the recipe has it.
        where: the key, for messages.

    Raises:
        RecipeError: ``~name`` of nobody, a drive letter, or backslashes in a path that exists in neither form.
    """
    if path.startswith(PACKAGED):
        return Path(__file__).parents[1] / path.removeprefix(PACKAGED)
    given = root / _at_home(path, where)
    if "\\" not in path or given.exists() or _matches_files(given):
        return given
    if path[1:2] == ":":
        raise RecipeError(f"{where}: {path} is a path of Windows with a drive; give the path that this machine has")
    slashed = root / _at_home(path.replace("\\", "/"), where)
    if not (slashed.exists() or _matches_files(slashed)):
        raise RecipeError(f"{where}: {path} does not exist, neither does {slashed}; write folders with / between")
    return slashed


def _at_home(path: str, where: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RecipeError(f"{where}: {path}: no user has this name; write ./{path} for a folder of that name") from None


def _matches_files(path: Path) -> bool:
    """Whether the last part is a pattern, as for archives, in a folder that exists."""
    return "*" in path.name and path.parent.exists()
