"""``run`` and ``plan``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainbridge.cli.terminal import echo, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domainbridge.build.datasets import DataSets
    from domainbridge.config.schema import Recipe
    from domainbridge.methods.base import StageSpec

__all__ = ["carry_out", "plan", "run"]

RecipeArgument = Annotated[
    str, typer.Argument(help="path to a YAML file, or name of a shipped recipe", metavar="RECIPE")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="keys of the recipe, e.g. training.steps=500 stages.r1-cut.learning_rate=1e-4", metavar="KEY=VALUE"
    ),
]
Out = Annotated[Path | None, typer.Option(help="path to the run folder; default: runs/NAME")]


def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = None,
    only: Annotated[str | None, typer.Option(help="name of a stage to run alone; its inputs must be done")] = None,
    until: Annotated[str | None, typer.Option(help="name of the last stage to run")] = None,
) -> None:
    """Run all stages, score them, keep the final model. Finished stages are skipped, half-done stages resume."""
    from domainbridge.build.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    carry_out(loaded, out or Path("runs") / loaded.name, only=only, until=until)


def carry_out(loaded: "Recipe", folder: Path, *, only: str | None = None, until: str | None = None) -> None:
    """Carry out a recipe on the terminal: progress, a table at the end, exit code 1 after a requested stop."""
    from domainbridge.api import adapt
    from domainbridge.cli.parsing import writable_folder
    from domainbridge.cli.tables import print_outcome
    from domainbridge.run.callbacks.console import ConsoleCallback
    from domainbridge.runtime.torchrun import is_main_process

    writable_folder(folder, "--out")
    result = adapt(loaded, out=folder, callbacks=[ConsoleCallback()], only=only, until=until)
    if is_main_process():
        try:
            print_outcome(folder)
        except Exception as error:  # whatever is wrong with the summary, the run is done
            say(f"note: the summary cannot be shown ({type(error).__name__}: {error})")
    if not result.finished:
        if is_main_process():
            say("stopped at a checkpoint; the same command goes on from here")
        raise typer.Exit(1)


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Out = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="take a few real steps of each kind of stage to measure the time")
    ] = False,
) -> None:
    """Show the stages: done or not and why, and an estimate of time, memory and disk."""
    from domainbridge.build.datasets import open_data
    from domainbridge.build.label_space import scoring_rule
    from domainbridge.build.recipe import load_recipe
    from domainbridge.cli.tables import print_plan
    from domainbridge.errors import DataError
    from domainbridge.run.disk_space import disk_notes, disk_text, written_bytes
    from domainbridge.run.graph import measured_seconds, stage_graph
    from domainbridge.run.graph import plan as plan_stages
    from domainbridge.run.kept_runs import describe_move
    from domainbridge.run.run_folder import check_images_apart, check_run_folder
    from domainbridge.run.selection import describe_selection
    from domainbridge.tools.estimate import estimate
    from domainbridge.tools.loading import loading_rate, loading_text

    loaded = load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / loaded.name
    check_run_folder(loaded, folder)
    scoring_rule(loaded)
    try:
        data, missing = open_data(loaded), None
    except DataError as error:
        data, missing = None, str(error)
    if data is not None:
        check_images_apart(loaded, data, folder)
    nodes = stage_graph(loaded, data)
    planned = plan_stages(nodes, folder)
    probed = None
    if probe and data is not None:
        from domainbridge.tools.probe import probe as take_steps

        say("taking a few steps of each kind of stage")
        probed = take_steps(loaded, data, [item.node.spec for item in planned if item.open])
    estimated = estimate(loaded, nodes, measured_seconds(nodes, folder), probed)
    print_plan(loaded, planned, folder, estimated)
    if needed := written_bytes(planned, estimated.loads, folder):
        echo(disk_text(needed, folder))
    if data is not None and any(item.open for item in planned):
        loading = loading_rate(loaded, data)
        typer.echo(loading_text(loaded, loading, estimated.step_seconds, estimated.gpu_step_seconds))
    echo(describe_selection(nodes, loaded, folder))
    for note in (*_notes(loaded, data, [node.spec for node in nodes]), *disk_notes(needed, folder)):
        say(f"note: {note}")
    move = describe_move(planned, folder) if data is not None else None
    if move:
        echo(f"\n`run` begins with this: {move}")
    if missing:
        say(f"\nnot ready to run: {missing}")


def _notes(recipe: "Recipe", data: "DataSets | None", stages: "Sequence[StageSpec]") -> list[str]:
    """What to know before the run: licenses, where weights come from, what starts where, what scores will tell."""
    from domainbridge.build.fine_tuning import trunk_notes
    from domainbridge.build.initial_model import init_notes
    from domainbridge.build.label_space import crop_notes
    from domainbridge.build.networks import adabn_notes
    from domainbridge.build.stage_network import stage_recipe
    from domainbridge.build.weight_licenses import license_notes
    from domainbridge.models.pretrained_files import place_sentence
    from domainbridge.run.initial_files import begins_with_pretrained
    from domainbridge.tools.scored_images import scored_image_notes, tuning_notes

    notes = license_notes(recipe, stages)
    pretrained = [
        stage_recipe(recipe, stage).model.backbone for stage in stages if begins_with_pretrained(recipe, stage)
    ]
    notes += map(place_sentence, dict.fromkeys(pretrained))
    notes += [*init_notes(recipe), *trunk_notes(recipe, stages), *adabn_notes(recipe, stages), *crop_notes(recipe)]
    return notes if data is None else [*notes, *scored_image_notes(recipe, data), *tuning_notes(recipe)]
