"""``run`` and ``plan``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.pipeline.datasets import DataSets

__all__ = ["plan", "run"]

RecipeArgument = Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe", metavar="RECIPE")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="e.g. training.steps=500 stages.r1-cut.learning_rate=1e-4", metavar="KEY=VALUE"),
]
Out = Annotated[Path | None, typer.Option(help="run folder; default: runs/NAME")]


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = None,
    only: Annotated[str | None, typer.Option(help="run this stage alone; its inputs must be done")] = None,
    until: Annotated[str | None, typer.Option(help="stop after this stage")] = None,
) -> None:
    """Do everything: both rounds, scores, the final model. Finished stages are skipped, half-done ones resumed."""
    from domainbridge.cli.watch import watching
    from domainbridge.cli.words import writable_folder
    from domainbridge.config.load import load_recipe
    from domainbridge.pipeline.execute import run_recipe

    loaded = load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / loaded.name
    writable_folder(folder, "--out")
    speaks = os.environ.get("RANK", "0") == "0"
    with watching(folder, speaks=speaks) as listener:
        finished = run_recipe(loaded, folder, listener, only=only, until=until)
    if not finished:
        if speaks:
            typer.echo("stopped at a checkpoint; the same command goes on from here", err=True)
        raise typer.Exit(1)


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = None,
    probe: Annotated[bool, typer.Option("--probe", help="take a few real steps of each kind to tell the time")] = False,
) -> None:
    """Show the stages: what is done, what would run and why, and an estimate of time and memory."""
    from domainbridge.cli.watch import print_plan
    from domainbridge.config.load import load_recipe
    from domainbridge.errors import DataError
    from domainbridge.pipeline.execute import inspect_run, refuse_foreign

    loaded = load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / loaded.name
    refuse_foreign(loaded, folder)
    try:
        data, missing = _open(loaded), None
    except DataError as error:
        data, missing = None, str(error)
    planned = inspect_run(loaded, data, folder)
    probed = None
    if probe and data is not None:
        from domainbridge.pipeline.probe import probe as take_steps

        typer.echo("taking a few steps of each kind of stage", err=True)
        probed = take_steps(loaded, data, [item.stage for item in planned if item.verdict.action != "done"])
    print_plan(loaded, planned, folder, probed)
    if missing:
        typer.echo(f"\nnot ready to run: {missing}", err=True)


def _open(recipe: "Recipe") -> "DataSets":
    from domainbridge.pipeline.datasets import open_data
    from domainbridge.pipeline.labels import scoring_rule

    scoring_rule(recipe)
    return open_data(recipe)
