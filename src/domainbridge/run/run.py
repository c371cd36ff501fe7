"""A whole run: check everything, then carry out the stages that are not done, one after the other."""

import json
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

from domainbridge.build.batches import batch_bytes
from domainbridge.build.datasets import DataSets, open_data, resolved_root
from domainbridge.build.fine_tuning import trunk_notes
from domainbridge.build.initial_model import init_notes
from domainbridge.build.label_space import crop_notes, scoring_rule
from domainbridge.build.networks import adabn_notes, check_network, model_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.load import dump_recipe
from domainbridge.config.schema import Recipe
from domainbridge.errors import RunFolderError
from domainbridge.evaluation.predictor import Predictor
from domainbridge.files import read_json, remove_temporaries, write_text
from domainbridge.methods.base import AdaBNStage
from domainbridge.models.model_folder import publish_model
from domainbridge.run.callbacks.base import CallbackList, NullCallback
from domainbridge.run.context import Context
from domainbridge.run.disk_space import disk_notes, written_bytes
from domainbridge.run.example_images import example_images
from domainbridge.run.graph import (
    Node,
    PlannedStage,
    final_stage,
    plan,
    selected,
    stage_graph,
)
from domainbridge.run.initial_files import begins_with_pretrained
from domainbridge.run.kept_runs import arrange, describe_move, recover
from domainbridge.run.label_free import score_without_labels
from domainbridge.run.lock import FolderLock
from domainbridge.run.results import Role, StageScores, evaluate_stage, gather_results, scored_roles
from domainbridge.run.run_folder import check_images_apart, check_needed_results, check_run_folder, environment_note
from domainbridge.run.selection import selected_stage
from domainbridge.run.side_by_side import check_shares, run_side_by_side, waves
from domainbridge.run.stage import run_stage
from domainbridge.run.stage_status import StageStatus
from domainbridge.run.training_files import training_files
from domainbridge.run.work import planned_work
from domainbridge.runtime.device import Runtime, environment, precision_note, resolve_runtime
from domainbridge.runtime.distributed import Processes
from domainbridge.runtime.signals import graceful_shutdown
from domainbridge.runtime.torchrun import joined_processes
from domainbridge.tools.check import check_data, check_fingerprint, source_pixels
from domainbridge.tools.estimate import memory_notes
from domainbridge.tools.preview import draw_preview
from domainbridge.tools.scored_images import scored_image_notes
from domainbridge.tools.stage_loads import stage_loads

__all__ = ["run_recipe"]


def run_recipe(
    recipe: Recipe,
    folder: Path,
    callbacks: Sequence[NullCallback] = (),
    *,
    only: str | None = None,
    until: str | None = None,
) -> bool:
    """Carry out what is not done, resume what is half done, repeat what changed.

    If a finished or half-done stage would be replaced because of a change, the folder is first moved to ``NAME.1`` (the
    next free number), and the new one takes over the stages that did not change. Finished stages of such kept folders
    are taken over whenever they fit again.

    Args:
        recipe: complete.
        folder: of the run.
        callbacks: told of everything that happens, in the main process only.
        only: carry out this stage alone.
        until: stop after this stage.

    Returns:
        True when all that was asked for is done, False after a requested stop.

    Raises:
        InputError: something is wrong with the recipe, the data or the folder; nothing was changed.
        TrainingError: a loss was not finite, or another process failed.
    """
    with (
        joined_processes(recipe.runtime.device) as processes,
        closing(CallbackList(callbacks if processes.is_main else ())) as callback,
        closing(CallbackList([each for each in callbacks if each.per_stage])) as followers,
    ):
        settings = recipe.runtime
        batch = batch_bytes(recipe, _sharing(recipe, processes))
        runtime = resolve_runtime(settings.device, settings.threads, settings.num_workers, processes, batch)
        for note in runtime.notes:
            callback.message(f"note: {note}")
        data = open_data(recipe)
        nodes, passed = _checked(recipe, folder, data, callback, processes, only, until)
        precisions = {node.training.precision for node in nodes if node.training is not None}
        if (remark := precision_note(runtime.device, {*precisions, recipe.evaluation.precision})) is not None:
            callback.message(f"note: {remark}")
        alone = FolderLock(folder, callback.message, only) if processes.is_main else nullcontext()
        several = processes.count > 1
        with alone as lock, graceful_shutdown(callback.message, ends_with_block=several) as stop_requested:
            # Read again now that no other run can finish a stage, and in all processes before a stage changes a folder.
            statuses: dict[str, StageStatus] = {}
            if lock is not None:
                statuses = _prepare(recipe, nodes, data, folder, lock, callback, only, until)
                _describe(recipe, data, folder, runtime, passed, callback)
            statuses = processes.broadcast(statuses)
            planned = [PlannedStage(node, statuses[node.name]) for node in nodes if node.name in statuses]
            training = training_files(recipe, data, planned, folder, runtime, callback, stop_requested)
            if training is None:
                return False
            callback.run_begins(recipe, folder, planned)
            parts = waves(recipe, planned, processes.count)
            if processes.is_main:  # of stages at the same time, its part is the first one
                callback.work_begins(
                    planned_work(recipe, data, [wave[0] for wave in parts], folder, final_stage(nodes))
                )
            context = Context(recipe, training, folder, runtime, callback, stop_requested)
            finished = _carry_out(parts, planned, nodes, context, data, lock, followers)
            if processes.is_main:
                callback.run_ends(gather_results(nodes, recipe, data, folder), finished=finished)
            return finished


def _sharing(recipe: Recipe, processes: Processes) -> int:
    """How many processes share a step at least: two paths at the same time have half of the processes each."""
    return processes.count if recipe.runtime.parallel_stages is False else -(-processes.count // 2)


def _carry_out(
    waves_of_stages: Sequence[Sequence[PlannedStage]],
    planned: Sequence[PlannedStage],
    nodes: Sequence[Node],
    context: Context,
    data: DataSets,
    lock: FolderLock | None,
    followers: CallbackList,
) -> bool:
    """Carry out what is open of each wave and score it; False after a requested stop."""
    processes = context.runtime.processes
    for wave in waves_of_stages:
        if len(wave) > 1:
            trained = run_side_by_side(wave, planned, context, data, followers)
        else:
            (item,) = wave
            context.callback.stage_begins(item)
            trained = not item.open or run_stage(item.node, context, resume=item.status.action == "resume")
        if not (trained and all(_score(item, nodes, context, data, lock) for item in wave)):
            return False
        if processes.any(context.stop_requested()):
            return wave[-1] is planned[-1]
    return True


def _checked(
    recipe: Recipe,
    folder: Path,
    data: DataSets,
    callback: NullCallback,
    processes: Processes,
    only: str | None,
    until: str | None,
) -> tuple[list[Node], dict[str, Any]]:
    """Look at everything before anything is changed; the stages, and what was checked."""
    scoring_rule(recipe)
    if processes.is_main:
        recover(folder)
    processes.barrier()
    check_run_folder(recipe, folder)
    check_images_apart(recipe, data, folder)
    nodes = stage_graph(recipe, data)
    for node in nodes:
        if node.training is not None:
            processes.rows(node.training.batch_size, node.training.gradient_accumulation_steps)
        elif isinstance(node.spec, AdaBNStage):
            processes.rows(recipe.training.batch_size)
    wanted = selected(plan(nodes, folder), only, until)
    parts = waves(recipe, wanted, processes.count)
    check_shares(recipe, parts, processes.count)
    notes = [*adabn_notes(recipe, [item.node.spec for item in wanted]), *crop_notes(recipe)]
    passed: dict[str, Any] = {"passed": check_fingerprint(recipe, data)}
    specs = [node.spec for node in nodes]
    begins = [item for item in wanted if item.open and begins_with_pretrained(recipe, item.node.spec)]
    if processes.is_main:
        check_network(recipe, specs, processes.count, initial=bool(begins))
        kept = read_json(folder / "data-check.json") or {}
        if kept.get("passed") == passed["passed"]:
            passed = kept
        else:
            survey = check_data(recipe, data, callback.message)
            passed["source_pixels"] = source_pixels(recipe, survey)
        loads = stage_loads(recipe, [item.node for item in wanted if item.open], _sharing(recipe, processes))
        for note in (
            *init_notes(recipe),
            *trunk_notes(recipe, [item.node.spec for item in wanted]),
            *notes,
            *scored_image_notes(recipe, data),
            *memory_notes(recipe, loads),
            *disk_notes(written_bytes(wanted, loads, folder, max(map(len, parts), default=1)), folder),
        ):
            callback.message(f"note: {note}")
        folder.mkdir(parents=True, exist_ok=True)
    processes.barrier()
    return stage_graph(recipe, data) if begins else nodes, passed  # pretrained files may only now be on this machine


def _prepare(
    recipe: Recipe,
    nodes: Sequence[Node],
    data: DataSets,
    folder: Path,
    lock: FolderLock,
    callback: NullCallback,
    only: str | None,
    until: str | None,
) -> dict[str, StageStatus]:
    """Check what this start reads, and move away what it would replace; the folder is locked.

    Returns:
        The status of each stage of this start.
    """
    if lock.alone:
        remove_temporaries(folder)
    planned = plan(nodes, folder)
    wanted = selected(planned, only, until)
    check_needed_results(planned, wanted, recipe, data, folder)
    if lock.alone:
        arrange(planned, wanted, folder, lock, callback.message)
        lock.share()
    elif (move := describe_move(wanted, folder)) is not None:
        raise RunFolderError(f"{folder}: another process runs a stage in it, so nothing can be moved now; {move}")
    return {item.name: item.status for item in wanted}


def _describe(
    recipe: Recipe, data: DataSets, folder: Path, runtime: Runtime, passed: dict[str, Any], callback: NullCallback
) -> None:
    """Write what is run, on which data and where; a picture of the data once for each state of the data."""
    note = environment_note(read_json(folder / "environment.json"), environment(runtime))
    if note is not None:
        callback.message(note)
    resolved = recipe.model_copy(update={"data_root": resolved_root(recipe)})
    write_text(folder / "recipe.yaml", dump_recipe(resolved))
    kept = read_json(folder / "data-check.json") or {}
    if kept.get("passed") != passed["passed"] or not (folder / "preview.png").exists():
        draw_preview(recipe, data, folder / "preview.png")
    counts = {
        "sources": {domain.name: len(listed) for domain, listed in zip(recipe.sources, data.sources, strict=True)},
        "targets": {domain.name: len(listed) for domain, listed in zip(recipe.targets, data.targets, strict=True)},
    }
    write_text(folder / "data-check.json", json.dumps({**passed, "images": counts}) + "\n")
    write_text(folder / "environment.json", json.dumps(environment(runtime), indent=1) + "\n")


def _score(
    item: PlannedStage, nodes: Sequence[Node], context: Context, data: DataSets, lock: FolderLock | None
) -> bool:
    """Score a finished stage and write the results so far; False after a requested stop.

    Scores without labels come first: with the last stage's, they say which model is the run's and sees test images.
    """
    node, recipe, folder, changed = item.node, context.recipe, context.folder, item.open
    if not score_without_labels(node, nodes, context, data):
        return False
    chosen = context.runtime.processes.broadcast(selected_stage(nodes, recipe, folder))
    last = node.name == final_stage(nodes)
    todo = [(node, role) for role in scored_roles(node, chosen, data)]
    if last and data.test:  # an earlier stage may only now be known to be the run's
        todo += [(each, "test") for each in nodes if each.name == chosen != node.name]
    for each, role in todo:
        scored = _score_on(role, each, context, data)
        if scored is None:
            return False
        changed |= scored.model is not None
    if lock is not None:
        with lock.writing_results():
            results = gather_results(nodes, recipe, data, folder)
            write_text(folder / "results.json", json.dumps(results.to_json(), indent=1) + "\n")
            if changed:
                context.callback.stage_ends(node, results)
        if last:
            publish_model(folder / results.final / "model", folder / "model")
    return True


def _score_on(role: Role, node: Node, context: Context, data: DataSets) -> StageScores | None:
    """Score a stage's model on labeled images and tell the callbacks; None after a requested stop."""
    recipe, callback = context.recipe, context.callback
    scored = evaluate_stage(node, context, data, role)
    if scored is None or not context.runtime.processes.is_main:
        return scored
    if role == "test":
        callback.stage_tested(node, scored.targets)
    elif scored.targets:
        callback.stage_scored(node, scored.targets)
        if scored.model is not None and isinstance(callback, CallbackList) and callback.wants_examples:
            config = model_config(stage_recipe(recipe, node.spec))
            predictor = Predictor(scored.model, config, scoring_rule(recipe).inference)
            examples = example_images(predictor, recipe, data)
            if examples is not None:
                callback.stage_examples(node, examples)
    return scored
