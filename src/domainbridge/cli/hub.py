"""``hub push | pull | card``: models to and from the Hugging Face hub."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import say

__all__ = ["app"]

app = typer.Typer(
    help="Models to and from the Hugging Face hub, with a model card.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Argument(help="path to a model folder, e.g. runs/NAME/model", metavar="MODEL")]
Name = Annotated[str, typer.Argument(help="name on the hub", metavar="USER/NAME")]


@app.command()
def push(
    model: Folder,
    name: Name,
    public: Annotated[
        bool, typer.Option("--public", help="everybody may read a new repository; default: private")
    ] = False,
    license_id: Annotated[
        str | None, typer.Option("--license", help="license of the model, e.g. cc-by-4.0, for the card that is sent")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="a model that is there already gets a new commit with these files")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check and list all, send nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask about licenses")] = False,
) -> None:
    """Send model.safetensors, config.json and the card README.md to the hub, privately unless --public is given."""
    from domainbridge.tools.hub import push as push_model

    def confirm(question: str) -> bool:
        say(question)
        return yes or (sys.stdin.isatty() and typer.confirm("Send the model all the same?", err=True))

    pushed = push_model(
        model,
        name,
        public=public,
        license_id=license_id,
        replace=replace,
        dry_run=dry_run,
        confirm=confirm,
        report=say,
    )
    if pushed is not None:
        say(f"sent: {pushed.url} ({'public' if public else 'private'})")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="name on the hub, with @REVISION if wanted", metavar="USER/NAME")],
    out: Annotated[Path, typer.Option(help="path to a new or empty folder for the model")],
) -> None:
    """Fetch a model from the hub into a folder, and check it."""
    from domainbridge.cli.parsing import writable_folder
    from domainbridge.tools.hub import pull as pull_model

    writable_folder(out, "--out")
    say(f"model: {pull_model(name, out)}")


@app.command()
def card(model: Folder) -> None:
    """Write the model card README.md anew, from the run that the model folder is part of; an edited card stays."""
    from domainbridge.models.card_file import CARD, write_card
    from domainbridge.report.write_cards import card_of

    note = write_card(model, card_of(model))
    say(f"note: {note}" if note else f"written: {model / CARD}")
