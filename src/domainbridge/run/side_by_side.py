"""Stages that do not depend on each other, at the same time, each on its share of the processes.

A path on one GPU of two takes less time than two paths one after the other on both: four images a step are too few to
divide. Nothing else changes: a stage on one process gives what it gives in a run of one process, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import replace

from domainbridge.build.datasets import DataSets
from domainbridge.build.teacher_statistics import single_rows
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.run.callbacks.base import CallbackList, NullCallback
from domainbridge.run.context import Context
from domainbridge.run.graph import PlannedStage
from domainbridge.run.results import evaluate_stage
from domainbridge.run.stage import run_stage

__all__ = ["check_shares", "run_side_by_side", "waves"]

_FEW_ROWS = 4
"""Images of a step below which a GPU is not busy with its share: then stages are divided, and not the images."""


def waves(recipe: Recipe, planned: Sequence[PlannedStage], count: int) -> list[list[PlannedStage]]:
    """The stages in order; those that run at the same time stand together.

    These are neighbors of one kind that train and do not read each other's results, as many as divide the processes.

    Args:
        recipe: its key ``runtime.parallel_stages`` decides, with "auto" the rows that each process would get.
        planned: stages of this start.
        count: number of processes.
    """
    result: list[list[PlannedStage]] = []
    for item in planned:
        if result and _may_join(recipe, item, result[-1], count):
            result[-1].append(item)
        else:
            result.append([item])
    return [part for wave in result for part in ([[item] for item in wave] if count % len(wave) else [wave])]


def check_shares(recipe: Recipe, parts: Sequence[Sequence[PlannedStage]], count: int) -> None:
    """Refuse stages whose batches cannot be shared among processes.

    BatchNorm over processes counts on equally many rows in each. A teacher with statistics per target has a pass for
    each target's rows, and every process has another number of them: wrong moments, or a wait without end.

    Args:
        recipe: complete.
        parts: of :func:`waves`.
        count: number of processes.

    Raises:
        RecipeError: several processes would share a stage with such a teacher.
    """
    if not single_rows(recipe):
        return
    for wave in parts:
        share = count // len(wave)
        for item in wave if share > 1 else ():
            spec = item.node.spec
            if item.open and isinstance(spec, TrainingStage) and spec.ema_teachers:
                raise RecipeError(
                    "self_training.teacher_statistics: statistics per target need all rows of a target in one process, "
                    f"and {share} processes would share the batches of {spec.name}; take one value for all targets, or "
                    "fewer processes"
                )


def run_side_by_side(
    wave: Sequence[PlannedStage],
    planned: Sequence[PlannedStage],
    context: Context,
    data: DataSets,
    followers: CallbackList,
) -> bool:
    """Train and score the stages of a wave; called by all processes together.

    Args:
        wave: of :func:`waves`, with several stages.
        planned: all stages of this start, for callbacks.
        context: of the whole run.
        data: with the validation sets.
        followers: told of the stages that the run's main process does not see: callbacks that write into the stage's
            folder.

    Returns:
        True when all stages are done and scored, False after a requested stop.
    """
    runtime = context.runtime
    number, share = runtime.processes.split(len(wave))
    item, callback = wave[number], context.callback
    if not runtime.processes.is_main:
        callback = followers if share.is_main else NullCallback()
        callback.run_begins(context.recipe, context.folder, planned)
    for other in wave:
        context.callback.stage_begins(other)
    if runtime.processes.is_main:
        names = ", ".join(other.name for other in wave if other is not item)
        callback.message(f"{names}: at the same time on other processes; progress is in metrics.jsonl of the folder")
    else:
        callback.stage_begins(item)
    part = replace(context, runtime=replace(runtime, processes=share), callback=callback)
    trained = run_stage(item.node, part, resume=item.status.action == "resume")
    done = trained and evaluate_stage(item.node, part, data) is not None
    return not runtime.processes.any(not done)


def _may_join(recipe: Recipe, item: PlannedStage, wave: list[PlannedStage], count: int) -> bool:
    choice = recipe.runtime.parallel_stages
    first, training = wave[0].node.spec, item.node.training
    if choice is False or not (item.open and wave[0].open) or not isinstance(item.node.spec, TrainingStage):
        return False
    if not isinstance(first, TrainingStage) or first.kind != item.node.spec.kind or training is None:
        return False
    if {other.name for other in wave} & set(item.node.spec.inputs) or len(wave) == count:
        return False
    each = count // (len(wave) + 1)
    divides = each > 0 and not training.batch_size % (each * training.gradient_accumulation_steps)
    return divides and (choice is True or training.batch_size // count < _FEW_ROWS)
