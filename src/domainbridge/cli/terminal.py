"""Output of the commands. All text goes through here, so that no name of a file commands the terminal."""

import sys

import typer
from rich.markup import escape

from domainbridge.printable import printable

__all__ = ["cell", "echo", "forgiving_streams", "say"]


def echo(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print a text on stdout, or on stderr."""
    typer.echo(printable(text), err=err, nl=nl)


def say(line: object) -> None:
    """Print a line about the work on stderr."""
    echo(line, err=True)


def cell(text: object) -> str:
    """A text for a rich table or title: brackets are no markup."""
    return escape(printable(text))


def forgiving_streams() -> None:
    """A character that the terminal's encoding lacks is shown as its number instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
