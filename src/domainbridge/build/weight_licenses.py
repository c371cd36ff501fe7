"""Licenses of initial weights: of the networks themselves, and of the teachers that a student learned from."""

from collections.abc import Iterable
from pathlib import Path

from domainbridge.build.initial_model import init_folder, weights_of_run
from domainbridge.build.paths import below
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.schema import Recipe
from domainbridge.methods.base import StageSpec, TrainingStage
from domainbridge.models.licenses import InitialWeights, weights_sentences
from domainbridge.models.model_folder import read_model_config

__all__ = ["license_notes", "teacher_weights"]


def teacher_weights(recipe: Recipe, stage: StageSpec) -> tuple[InitialWeights, ...]:
    """Initial weights of the networks that taught a stage's student, where these are others than the student's.

    These are the recipe's network for a student of another network, and finished models that are teachers or the
    start. Teachers of such a model count too.

    Raises:
        ModelError: a model folder is missing or damaged.
    """
    of_student = stage_recipe(recipe, stage)
    folders = [init_folder(of_student)]
    began: list[InitialWeights | None] = []
    if isinstance(stage, TrainingStage):
        if stage.network is not None:
            began.append(weights_of_run(recipe))
            folders.append(init_folder(recipe))
        teachers = [below(Path(), model, "teachers") for model in stage.teacher_models]
        began += [read_model_config(folder).initial_weights for folder in teachers]
        folders += teachers
    for folder in folders:
        began += [] if folder is None else read_model_config(folder).teacher_weights
    students = weights_of_run(of_student)
    return tuple(dict.fromkeys(weights for weights in began if weights is not None and weights != students))


def license_notes(recipe: Recipe, stages: Iterable[StageSpec]) -> list[str]:
    """Licenses of all weights that a run's networks begin with or learn from, as sentences, for a plan.

    Raises:
        ModelError: as for :func:`teacher_weights`.
    """
    stages = list(stages)
    began = dict.fromkeys(weights_of_run(stage_recipe(recipe, stage)) for stage in stages)
    taught = dict.fromkeys(weights for stage in stages for weights in teacher_weights(recipe, stage))
    sentences = [sentence for weights in began if weights is not None for sentence in weights_sentences(weights)]
    sentences += [sentence for weights in taught for sentence in weights_sentences(weights, of_teacher=True)]
    return list(dict.fromkeys(sentences))
