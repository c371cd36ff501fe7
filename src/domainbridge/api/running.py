"""Carry out a recipe; distill finished models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from domainbridge.api.models import PathLike, load_model
from domainbridge.api.recipes import recipe_of
from domainbridge.config.schema import Recipe
from domainbridge.evaluation.predictor import Predictor
from domainbridge.report.write import ReportCallback, write_report
from domainbridge.report.write_cards import CardCallback
from domainbridge.run.callbacks.base import CALLBACKS, NullCallback
from domainbridge.run.results import Results, read_results
from domainbridge.run.run import run_recipe
from domainbridge.runtime.torchrun import recorded
from domainbridge.tools.distill_recipe import distillation_tree

__all__ = ["Run", "adapt", "distill"]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        folder: with the stages, the results and the final model.
        finished: False after a requested stop; the same call goes on.
    """

    folder: Path
    finished: bool

    @cached_property
    def results(self) -> Results:
        """Scores, steps and seconds of every finished stage.

        Raises:
            RunFolderError: no stage is finished.
        """
        return read_results(self.folder)

    @cached_property
    def model(self) -> Predictor:
        """The final model.

        Raises:
            ModelError: the last stage is not finished.
        """
        return load_model(self.folder / "model")

    def write_report(self, out: PathLike | None = None) -> Path:
        """Write one HTML file that says whether adaptation worked; the path of the file.

        Args:
            out: path to the file; default: ``report.html`` in the folder, where ``adapt`` has written one.

        Raises:
            RunFolderError: no stage is finished, or another file is in the way.
        """
        return write_report([self.folder], None if out is None else Path(out))


def adapt(
    recipe: Recipe | PathLike | Mapping[str, Any],
    *,
    data_root: PathLike | None = None,
    out: PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    callbacks: Sequence[NullCallback] | None = None,
    only: str | None = None,
    until: str | None = None,
) -> Run:
    """Carry out a recipe: every stage that is not done, from its checkpoint where there is one.

    After every stage ``report.html`` in the run folder is written anew.

    Args:
        recipe: name of a shipped recipe, path to a YAML file, keys and values, or a loaded recipe.
        data_root: path to the folder of all data sets; default: the recipe's.
        out: path to the run folder; default: ``runs/NAME``.
        overrides: dotted key -> value, e.g. ``{"training.steps": 100}``; not for a loaded recipe.
        callbacks: beside those of the recipe's ``runtime.callbacks``; e.g. ``[ConsoleCallback()]``.
        only: carry out this stage alone.
        until: stop after this stage.

    Raises:
        InputError: something is wrong with the recipe, the data or the folder; nothing was changed.
        TrainingError: a loss was not finite, or another process failed.
    """
    loaded = recipe_of(recipe, overrides, data_root)
    folder = Path(out) if out is not None else Path("runs") / loaded.name
    followers = [*(CALLBACKS[name]() for name in loaded.runtime.callbacks), *(callbacks or ())]
    followers += [ReportCallback(), CardCallback(tuple(followers))]
    finished = recorded(run_recipe)(loaded, folder, followers, only=only, until=until)
    return Run(folder, finished)


def distill(
    models: Sequence[PathLike] | PathLike,
    target: PathLike | None = None,
    *,
    backbone: str,
    weights: str = "none",
    out: PathLike,
    source: PathLike | None = None,
    source_labels: PathLike | None = None,
    recipe: Recipe | PathLike | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    callbacks: Sequence[NullCallback] | None = None,
) -> Run:
    """Distill finished models into one network, in a run folder that a repeated call goes on from.

    Args:
        models: paths to model folders, the teachers, of any size; all predict the same classes.
        target: path to a folder of unlabeled images.
        backbone: of the student, as in ``model.backbone``.
        weights: initial ones of the backbone, as in ``model.weights``.
        out: path to the run folder.
        source: path to a folder of labeled images, for a supervised loss beside the teachers' one.
        source_labels: path to the folder of their labels, train ids of the teachers' classes.
        recipe: in the place of ``target`` and ``source``: a recipe whose domains, label space and training are used.
        overrides: dotted key -> value of the recipe of method ``distill-models`` that results.
        callbacks: as for :func:`adapt`.

    Raises:
        InputError: a model, a folder or a value is wrong; nothing was changed.
        TrainingError: a loss was not finite.
    """
    teachers = [Path(models)] if isinstance(models, Path | str) else [Path(model) for model in models]
    tree = distillation_tree(
        teachers,
        Path(out).absolute().name,
        backbone,
        weights=weights,
        target=None if target is None else Path(target),
        source=None if source is None else Path(source),
        source_labels=None if source_labels is None else Path(source_labels),
        recipe=None if recipe is None else recipe_of(recipe),
    )
    return adapt(tree, out=out, overrides=overrides, callbacks=callbacks)
