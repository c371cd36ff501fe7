"""A whole run: check everything, then do what is not done, stage by stage."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import yaml

from domainbridge.config.load import dump_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.samples import Samples
from domainbridge.errors import RecipeError, RunFolderError
from domainbridge.files import write_file, write_text
from domainbridge.pipeline.caching import training_samples
from domainbridge.pipeline.check import check_data, check_fingerprint
from domainbridge.pipeline.context import Context
from domainbridge.pipeline.datasets import DataSets, open_data, resolved_root
from domainbridge.pipeline.estimate import memory_notes
from domainbridge.pipeline.labels import scoring_rule
from domainbridge.pipeline.networks import check_network
from domainbridge.pipeline.plan import Stage, StageState, Verdict, final_stage, plan_stages, read_json, verdict
from domainbridge.pipeline.results import evaluate_stage, write_results
from domainbridge.pipeline.stages import run_stage
from domainbridge.training.interruption import polite_interruption
from domainbridge.training.loop import Progress
from domainbridge.training.processes import Processes, joined_processes
from domainbridge.training.runtime import environment, resolve_runtime

__all__ = ["Listener", "PlannedStage", "Silent", "inspect_run", "run_recipe", "selected"]


class Listener(Protocol):
    """Who watches a run."""

    def message(self, text: str) -> None:
        """A line to show."""
        ...

    def stage_begins(self, stage: Stage, verdict: Verdict) -> None:
        """A stage is about to run, or is skipped."""
        ...

    def progress(self, stage: str, progress: Progress) -> None:
        """Steps were taken."""
        ...

    def stage_scored(self, stage: Stage, targets: dict[str, Any]) -> None:
        """A stage's model has been scored."""
        ...


@dataclass(frozen=True)
class PlannedStage:
    """A stage and what would happen to it."""

    stage: Stage
    verdict: Verdict


def inspect_run(recipe: Recipe, data: DataSets | None, folder: Path) -> list[PlannedStage]:
    """What a run would do in ``folder``; nothing is changed."""
    redone: set[str] = set()
    planned = []
    for stage in plan_stages(recipe, data):
        decision = verdict(stage, StageState.read(folder / stage.name), redone)
        if decision.action != "done":
            redone.add(stage.name)
        planned.append(PlannedStage(stage, decision))
    return planned


def selected(planned: list[PlannedStage], only: str | None, until: str | None) -> list[PlannedStage]:
    """The part of a plan that ``--only`` and ``--until`` leave.

    Raises:
        RecipeError: no such stage, or ``only`` needs a stage that is not done.
    """
    names = [item.stage.name for item in planned]
    for option, name in (("--only", only), ("--until", until)):
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: this recipe's stages are {', '.join(names)}")
    if until is not None:
        planned = planned[: names.index(until) + 1]
    if only is not None:
        todo = {item.stage.name for item in planned if item.verdict.action != "done"}
        planned = [item for item in planned if item.stage.name == only]
        if not planned:
            raise RecipeError(f"--only {only} comes after --until {until}")
        missing = [name for item in planned for name in item.stage.inputs if name in todo]
        if missing:
            raise RecipeError(f"--only {only}: needs {', '.join(missing)}, not done yet; run without --only first")
    return planned


def run_recipe(
    recipe: Recipe, folder: Path, listener: Listener, *, only: str | None = None, until: str | None = None
) -> bool:
    """Run what is not done, resume what is half done, redo what changed.

    Returns:
        True when all that was asked for is done, False after a requested stop.

    Raises:
        InputError: something is wrong with the recipe, the data or the folder; nothing was changed.
        TrainingError: a loss was not finite.
    """
    with joined_processes(recipe.runtime.device) as processes:
        return _run_together(recipe, folder, listener if processes.leader else Silent(), processes, only, until)


def _run_together(
    recipe: Recipe, folder: Path, listener: Listener, processes: Processes, only: str | None, until: str | None
) -> bool:
    settings = recipe.runtime
    runtime = resolve_runtime(settings.device, settings.threads, settings.workers, processes)
    for name in recipe.trained_stages():
        training = recipe.training_of(name)
        processes.rows(training.batch_size, training.accumulate)
    scoring_rule(recipe)
    data = open_data(recipe)
    refuse_foreign(recipe, folder)
    wanted = selected(inspect_run(recipe, data, folder), only, until)
    passed = {"passed": check_fingerprint(recipe, data)}
    if processes.leader:
        check_network(recipe, processes.count)
        if read_json(folder / "data-check.json") != passed:
            check_data(recipe, data, listener.message)
        for note in memory_notes(recipe, [item.stage for item in wanted if item.verdict.action != "done"]):
            listener.message(f"note: {note}")
        folder.mkdir(parents=True, exist_ok=True)
    processes.wait()
    alone = _only_process(folder) if processes.leader else nullcontext()
    with alone, polite_interruption(listener.message) as stop_requested:
        if processes.leader:
            resolved = recipe.model_copy(update={"data_root": resolved_root(recipe)})
            write_text(folder / "recipe.yaml", dump_recipe(resolved))
            write_text(folder / "data-check.json", json.dumps(passed) + "\n")
            write_text(folder / "environment.json", json.dumps(environment(runtime), indent=1) + "\n")
        # Planned again now that no other run can finish a stage, and by all before the first stage changes a folder.
        planned = processes.agreed(selected(inspect_run(recipe, data, folder), only, until))
        read: tuple[Samples, Samples] | None = (data.source, data.target)
        if any(item.verdict.action != "done" for item in planned):
            with processes.leader_first():
                read = training_samples(recipe, data, listener.message, stop_requested)
        if processes.any(read is None) or read is None:
            return False
        context = Context(recipe, data, *read, folder, runtime, listener.progress, stop_requested)
        return _run_stages(planned, context, listener)


class Silent:
    """A listener that shows nothing: for the processes that are not the first, and for runs inside programs."""

    def message(self, text: str) -> None:
        """Nothing is shown."""

    def stage_begins(self, stage: Stage, verdict: Verdict) -> None:
        """Nothing is shown."""

    def progress(self, stage: str, progress: Progress) -> None:
        """Nothing is shown."""

    def stage_scored(self, stage: Stage, targets: dict[str, Any]) -> None:
        """Nothing is shown."""


def _run_stages(planned: list[PlannedStage], context: Context, listener: Listener) -> bool:
    recipe, folder = context.recipe, context.folder
    every_stage = plan_stages(recipe, context.data)
    final = final_stage(recipe)
    processes = context.runtime.processes
    for item in planned:
        stage = item.stage
        listener.stage_begins(stage, item.verdict)
        if item.verdict.action != "done":
            finished = run_stage(stage, context, resume=item.verdict.action == "resume")
            if not finished:
                return False
        if stage.trains and context.data.validation:
            targets = evaluate_stage(stage, recipe, context.data, folder, context.runtime, context.stop_requested)
            if targets is None:
                return False
            listener.stage_scored(stage, targets)
        if processes.leader:
            write_results(every_stage, recipe, context.data, folder)
            if stage.name == final:
                _publish(folder / final / "model", folder / "model")
        if processes.any(context.stop_requested()):
            return item is planned[-1]
    return True


def refuse_foreign(recipe: Recipe, folder: Path) -> None:
    """A run folder keeps to one recipe name, so that a typing slip cannot overwrite another run.

    Raises:
        RunFolderError: the folder is another recipe's, or holds something else.
    """
    if not folder.exists():
        return
    path = folder / "recipe.yaml"
    if not folder.is_dir() or (not path.exists() and any(entry.name != ".lock" for entry in folder.iterdir())):
        raise RunFolderError(f"{folder}: exists and is not a run folder; choose another with --out")
    if path.exists():
        owner = _owner(path)
        if owner != recipe.name:
            raise RunFolderError(
                f"{folder}: belongs to recipe {owner!r}, not to {recipe.name!r}; choose another folder with --out"
            )


def _owner(path: Path) -> object:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):
        return None
    return content.get("name") if isinstance(content, dict) else None


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunFolderError(f"{folder}: another process is running in it; wait for it, or use --out") from None
        yield


def _publish(model: Path, destination: Path) -> None:
    """Copy the final model beside the stages; the description goes last, as when it was written."""
    destination.mkdir(exist_ok=True)
    for name in ("model.safetensors", "config.json"):
        write_file(destination / name, partial(shutil.copyfile, model / name))
