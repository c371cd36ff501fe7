"""``init``: a recipe for the user's own folders."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import echo

__all__ = ["init"]


def init(
    source: Annotated[Path, typer.Option(help="path to the folder of labeled images")],
    target: Annotated[Path, typer.Option(help="path to the folder of images without labels")],
    validation: Annotated[
        Path | None, typer.Option(help="path to labeled images of the target, for scores; may be the target's folder")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="path to the recipe; default: SOURCE-to-TARGET.yaml")] = None,
    classes: Annotated[
        str | None, typer.Option(help="names of the classes with commas, in the order of the values of the labels")
    ] = None,
) -> None:
    """Look at folders of images and labels, say what was understood, and write a recipe for them."""
    from domainbridge.cli.parsing import writable
    from domainbridge.cli.tables import print_found
    from domainbridge.tools.init.write import look, write_recipe

    if out is not None:
        writable(out, "--out")
    understood = look(source, target, validation)
    print_found(understood.rows)
    ask = _ask if sys.stdin.isatty() and sys.stdout.isatty() else None
    names = [name.strip() for name in classes.split(",")] if classes else []
    path, sizes = write_recipe(understood.named(names, ask), out)
    echo(f"written: {path}, for {sizes.machine}")
    echo(f"next: domainbridge data preview {path}")


def _ask(question: str, default: str) -> str:
    answer: str = typer.prompt(question, default=default)
    return answer
