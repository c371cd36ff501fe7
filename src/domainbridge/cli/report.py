"""``report``."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import echo

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="paths to run folders, e.g. runs/NAME; several seeds stand side by side")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="path to the HTML file; default: report.html in the run folder, of several runs here"),
    ] = None,
) -> None:
    """Write one HTML file that says whether adaptation worked: scores with intervals, pictures, curves."""
    from domainbridge.cli.parsing import writable
    from domainbridge.report.write import write_report

    if out is not None:
        writable(out, "--out")
    echo(write_report(runs, out))
