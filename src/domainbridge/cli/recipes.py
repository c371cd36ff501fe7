"""``recipes list | show | keys | copy``."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import echo

__all__ = ["app"]

app = typer.Typer(help="The recipes that are shipped.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="name of a shipped recipe", metavar="NAME")]


@app.command("list")
def list_recipes() -> None:
    """Names, and the first paragraph of each."""
    from domainbridge.config.load import shipped_recipes

    shipped = shipped_recipes()
    width = max(len(name) for name in shipped)
    for name, path in shipped.items():
        comment = takewhile(lambda line: line.strip("# "), path.read_text(encoding="utf-8").splitlines())
        echo(f"{name:<{width}}  {' '.join(line.lstrip('# ') for line in comment)}")


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    from domainbridge.config.load import recipe_path, recipe_text

    echo(recipe_text(recipe_path(name)), nl=False)


@app.command()
def keys() -> None:
    """Print every key with its values, its default and its meaning, as Markdown."""
    from domainbridge.build.recipe import recipe_keys_page

    echo(recipe_keys_page(), nl=False)


@app.command()
def copy(name: Name, to: Annotated[Path, typer.Argument(help="path to the copy; default: NAME.yaml")] = Path()) -> None:
    """Copy a recipe here under the file's name, to make it your own; an existing file is not overwritten."""
    from domainbridge.cli.parsing import writable
    from domainbridge.config.load import recipe_path, recipe_text
    from domainbridge.config.schema import NAME
    from domainbridge.errors import RecipeError
    from domainbridge.files import write_text

    source = recipe_path(name)
    destination = Path(f"{source.stem}.yaml") if to == Path() else to
    if destination.exists():
        raise RecipeError(f"{destination} exists; choose another name")
    writable(destination, "the copy")
    if not re.fullmatch(NAME, destination.stem):
        raise RecipeError(
            f"{destination}: the file's name becomes the recipe's, which is made of letters, digits and . _ + - only "
            "and begins with a letter or digit; choose another"
        )
    text = recipe_text(source)
    if destination.stem != source.stem:
        # The name is the run folder's: a copy must not write into the original's run. Quoted: 2024 is no text.
        text = re.sub(r"^name:.*$", f'name: "{destination.stem}"', text, count=1, flags=re.MULTILINE)
    write_text(destination, text)
    echo(destination)
