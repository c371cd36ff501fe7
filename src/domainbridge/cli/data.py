"""``data check | stats | preview | cache | pack | convert | layouts``."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.run import Overrides, RecipeArgument
from domainbridge.cli.terminal import echo, say
from domainbridge.errors import RecipeError

__all__ = ["app"]

_FOUND_OUT = "annotations"

app = typer.Typer(
    help="Data sets: what is known, and whether yours are in order.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def check(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    again: Annotated[bool, typer.Option("--again", help="decode all files again, also if none has changed")] = False,
) -> None:
    """Look at every image and label that a recipe names; list all that is wrong or would hurt later, at once."""
    from domainbridge.build.datasets import list_data
    from domainbridge.build.label_space import scoring_rule
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.tables import print_survey
    from domainbridge.errors import DataError, problem_list
    from domainbridge.tools.check import kept_or_new_survey

    loaded = load_recipe(recipe, overrides or [])
    scoring_rule(loaded)
    data, problems = list_data(loaded)
    survey = kept_or_new_survey(loaded, data, say, again=again)
    print_survey(survey)
    problems += survey.all_errors
    if problems:
        raise DataError(problem_list(f"recipe {loaded.name}: {len(problems)} problem(s)", problems, limit=200))


@app.command()
def stats(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="also draw the table into this PNG")] = None,
) -> None:
    """The share of every class in every labeled domain of a recipe."""
    from domainbridge.build.datasets import open_data
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.parsing import writable
    from domainbridge.cli.tables import print_shares
    from domainbridge.tools.statistics import class_shares, draw_shares

    if out is not None:
        writable(out, "--out")
    loaded = load_recipe(recipe, overrides or [])
    shares = class_shares(loaded, open_data(loaded))
    print_shares(shares)
    if out is not None:
        draw_shares(shares, out)
        say(f"drawn: {out}")


@app.command()
def preview(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="path to the picture")] = Path("preview.png"),
) -> None:
    """Draw images with their labels, the values of the labels and training crops into one PNG."""
    from domainbridge.build.datasets import list_data
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.parsing import writable
    from domainbridge.errors import DataError, problem_list
    from domainbridge.tools.preview import draw_preview

    writable(out, "--out")
    loaded = load_recipe(recipe, overrides or [])
    data, problems = list_data(loaded)
    problems += draw_preview(loaded, data, out)
    say(f"drawn: {out}")
    if problems:
        raise DataError(problem_list(f"recipe {loaded.name}: {len(problems)} problem(s)", problems))


@app.command()
def cache(recipe: RecipeArgument, overrides: Overrides = None) -> None:
    """Make reduced copies of a recipe's training files in cache.folder; `run` makes those that are missing too."""
    from domainbridge.build.datasets import open_data
    from domainbridge.build.recipe import load_recipe
    from domainbridge.tools.cache import cache_rule, cache_size, training_datasets

    loaded = load_recipe(recipe, overrides or [])
    rule = cache_rule(loaded)
    data = open_data(loaded)
    say(f"about {cache_size(loaded, data) / 2**30:.2f} GiB of {rule.format} copies in {rule.folder}")
    training_datasets(loaded, data, say)


@app.command()
def pack(
    recipe: RecipeArgument,
    out: Annotated[Path, typer.Option(help="folder for the archives")],
    overrides: Overrides = None,
    megabytes: Annotated[int, typer.Option(min=1, help="size of an archive")] = 256,
) -> None:
    """Pack a recipe's images and labels into tar archives (WebDataset) and print the lines that read them."""
    from domainbridge.build.datasets import open_data
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.parsing import writable_folder
    from domainbridge.tools.pack import pack_domains, recipe_lines

    writable_folder(out, "--out")
    loaded = load_recipe(recipe, overrides or [])
    pack_domains(loaded, open_data(loaded), out, megabytes * 2**20, say)
    say("in the recipe, in the place of its sources and targets:")
    echo(recipe_lines(loaded, out), nl=False)


@app.command()
def convert(
    dataset: Annotated[
        str,
        typer.Argument(
            help="a known data set (see `data layouts`), an annotation format such as coco, or annotations",
            metavar="DATASET",
        ),
    ],
    root: Annotated[
        Path, typer.Argument(help="where its archives were unpacked; annotations: a file or folder", metavar="ROOT")
    ],
    split: Annotated[str | None, typer.Option(help="one of its splits; default: train, where it has splits")] = None,
    out: Annotated[Path | None, typer.Option(help="default: ROOT/converted or ROOT/converted/SPLIT")] = None,
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Cityscapes label ids instead of train ids")] = False,
    half: Annotated[bool, typer.Option("--half", help="images and labels at half their size")] = False,
    images: Annotated[Path | None, typer.Option(help="annotations: folder of the images")] = None,
) -> None:
    """Write train-id PNGs and class statistics. Not needed for training: recipes read data sets as downloaded."""
    from domainbridge.cli.tables import counting
    from domainbridge.data.annotations.base import FORMATS
    from domainbridge.data.layout_listing import split_of
    from domainbridge.tools.convert import Conversion, convert_layout

    if dataset in (*FORMATS.names(), _FOUND_OUT):
        _convert_annotations(dataset, root, images, out, half=half, others=bool(split or label_ids))
        return
    if images is not None:
        raise RecipeError(
            f"--images is for annotations ({_FOUND_OUT}, {', '.join(FORMATS.names())}), not for {dataset}"
        )

    chosen = split_of(dataset, split, "convert", default="train")
    folder = out or root / "converted" / (chosen or "")
    with counting(f"{dataset} {chosen or ''}".strip()) as progress:
        written = convert_layout(dataset, root, chosen, Conversion(folder, label_ids, half), progress)
    say(f"{written} labels in {folder / 'labels'}")


def _convert_annotations(
    name: str, path: Path, images: Path | None, out: Path | None, *, half: bool, others: bool
) -> None:
    """``data convert`` of an annotation format."""
    from domainbridge.cli.tables import counting
    from domainbridge.tools.convert import Conversion, convert_annotations

    if images is None or out is None or others:
        raise RecipeError(f"convert {name} needs --images DIR and --out DIR, and knows neither --split nor --label-ids")
    with counting(name) as progress:
        chosen = None if name == _FOUND_OUT else name
        written, notes = convert_annotations(chosen, path, images, Conversion(out, half=half), progress)
    for note in notes:
        say(f"note: {note}")
    say(f"{written} labels in {out / 'labels'}, class names in {out / 'classes.txt'}")


@app.command()
def layouts() -> None:
    """The data sets that are read as they are downloaded."""
    from domainbridge.data.layouts.base import LAYOUTS

    echo("folder        your own: folders of images and labels, see docs/own-data.md")
    for name in LAYOUTS.names():
        layout = LAYOUTS[name]
        splits = f"; splits: {', '.join(layout.splits)}" if layout.splits else ""
        echo(f"{name:<13} {layout.title}{splits}")
        for scheme in layout.schemes:
            echo(f"{'':<13}   {scheme.images}, {scheme.labels}")
        echo(f"{'':<13}   {layout.unpack}")
