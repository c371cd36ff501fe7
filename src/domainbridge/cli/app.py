"""The verbs. Each is thin, and imports torch only when it is called, so that ``--help`` answers at once."""

import sys
from typing import Annotated

import typer

from domainbridge.cli import data, hub, model, recipes, run
from domainbridge.cli.distill import distill
from domainbridge.cli.doctor import doctor
from domainbridge.cli.export import export
from domainbridge.cli.init import init
from domainbridge.cli.predict import predict
from domainbridge.cli.report import report
from domainbridge.cli.serve import serve
from domainbridge.cli.suggest import suggest
from domainbridge.cli.terminal import echo, forgiving_streams, say
from domainbridge.errors import DomainbridgeError

__all__ = ["app", "run_app"]

app = typer.Typer(
    name="domainbridge",
    help="Adapt a segmentation model to images without labels (deliberated domain bridging, DDB).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("init")(init)
app.command("run")(run.run)
app.command("plan")(run.plan)
app.command("distill")(distill)
app.command("report")(report)
app.command("evaluate")(model.evaluate)
app.command("predict")(predict)
app.command("export")(export)
app.command("serve")(serve)
app.command("suggest")(suggest)
app.command("import")(model.import_)
app.command("doctor")(doctor)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.add_typer(hub.app, name="hub")


def _show_version(asked: bool) -> None:
    if asked:
        from domainbridge import __version__
        from domainbridge.installed import version_text

        echo(version_text(__version__))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="say the version, and the commit")
    ] = False,
) -> None:
    """Options in front of the verb; the help text is that of the app."""


def run_app() -> None:
    """Run the command line; a failure that the user can act on becomes its message and its exit code."""
    forgiving_streams()
    try:
        app()
    except DomainbridgeError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"error: {where}{error.strerror or error}")
        sys.exit(1)
