"""``distill``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["distill"]


def distill(
    models: Annotated[
        list[str],
        typer.Argument(
            help="paths to finished model folders, the teachers; then keys of the recipe, e.g. training.steps=5000",
            metavar="MODEL... [KEY=VALUE]...",
        ),
    ],
    backbone: Annotated[str, typer.Option(help="backbone of the student, as in model.backbone")],
    out: Annotated[Path, typer.Option(help="path to the run folder; its last part is the run's name")],
    target: Annotated[Path | None, typer.Option(help="path to a folder of unlabeled images")] = None,
    weights: Annotated[str, typer.Option(help="initial weights of the backbone, as in model.weights")] = "none",
    source: Annotated[
        Path | None, typer.Option(help="path to a folder of labeled images, for a supervised loss")
    ] = None,
    source_labels: Annotated[
        Path | None, typer.Option(help="path to the folder of their labels, train ids of the teachers' classes")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="in the place of folders: recipe whose images, classes and training are used")
    ] = None,
) -> None:
    """Distill finished models into one network of any size. The same command goes on after a stop."""
    from domainbridge.build.recipe import load_recipe, parse_recipe
    from domainbridge.cli.run import carry_out
    from domainbridge.tools.distill_recipe import distillation_tree

    overrides = [word for word in models if "=" in word and not Path(word).is_dir()]
    teachers = [Path(word) for word in models if word not in overrides]
    tree = distillation_tree(
        teachers,
        out.absolute().name,
        backbone,
        weights=weights,
        target=target,
        source=source,
        source_labels=source_labels,
        recipe=None if recipe is None else load_recipe(recipe),
    )
    carry_out(parse_recipe(tree, overrides), out)
