"""``suggest``: the target images that are worth a label."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import say

__all__ = ["suggest"]


def suggest(
    run: Annotated[Path, typer.Argument(help="path to a run folder", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="path to the folder of the list, the picture and the tasks")],
    count: Annotated[int, typer.Option(min=1, max=100_000, help="number of images")] = 20,
    target: Annotated[str | None, typer.Option(help="name of the target; needed where the recipe has several")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Choose the target images to label next: those on which a round's two models disagree, far from each other.

    Writes split.txt (a list for `split:`), sheet.jpg, label-studio.json and cvat.xml. Files that an earlier suggest
    wrote are replaced; no other file is.
    """
    from domainbridge.cli.parsing import writable_folder
    from domainbridge.cli.tables import counting
    from domainbridge.run.suggest import suggest as suggest_images

    writable_folder(out, "--out")
    with counting("images") as progress:
        names = suggest_images(
            run,
            out,
            count,
            target=target,
            device=device,
            report=say,
            progress=progress,
        )
    say(f"{len(names)} images in {out}: split.txt, sheet.jpg, label-studio.json, cvat.xml")
