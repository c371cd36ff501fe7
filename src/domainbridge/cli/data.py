"""``data check | layouts``."""

import typer

from domainbridge.cli.run import Overrides, RecipeArgument

__all__ = ["app"]

app = typer.Typer(
    help="Data sets: what is known, and whether yours are in order.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def check(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Decode every image and label that a recipe names; list everything that is wrong."""
    from domainbridge.config.load import load_recipe
    from domainbridge.pipeline.check import check_data
    from domainbridge.pipeline.datasets import open_data
    from domainbridge.pipeline.labels import scoring_rule

    loaded = load_recipe(recipe, overrides or [])
    scoring_rule(loaded)
    data = open_data(loaded)
    check_data(loaded, data, lambda text: typer.echo(text, err=True), at_most=None)
    for domain in data.domains:
        typer.echo(f"{domain.name}: {len(domain)} images in order")


@app.command()
def layouts() -> None:
    """The data sets that are read as they are downloaded."""
    from domainbridge.data.layouts import LAYOUTS

    typer.echo("folder        your own: folders of images and labels, see docs/own-data.md")
    for name, layout in LAYOUTS.items():
        splits = f"; splits: {', '.join(layout.splits)}" if layout.splits else ""
        typer.echo(f"{name:<13} {layout.title}{splits}")
        for place in layout.places:
            typer.echo(f"{'':<13}   {place.images}, {place.labels}")
        typer.echo(f"{'':<13}   {layout.unpack}")
