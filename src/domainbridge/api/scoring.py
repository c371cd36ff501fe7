"""Score a model on labeled images."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from domainbridge.api.models import PathLike, load_model
from domainbridge.api.recipes import recipe_of
from domainbridge.build.datasets import list_data
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.config.schema import Recipe
from domainbridge.errors import DataError, ModelError, RecipeError, problem_list
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import score_sets
from domainbridge.evaluation.label_maps import check_classes_occur, read_label_map
from domainbridge.evaluation.labeled_files import dataset_files, folder_files, scoring_of, space_of_labels
from domainbridge.evaluation.predictor import Predictor
from domainbridge.runtime.device import Runtime, resolve_runtime

__all__ = ["evaluate"]

_MUCH_IGNORED = 50.0
"""Percent of pixels without a class from which a warning is given."""


def evaluate(
    model: Predictor | PathLike,
    recipe: Recipe | PathLike | Mapping[str, Any] | None = None,
    *,
    images: PathLike | None = None,
    labels: PathLike | None = None,
    dataset: str | None = None,
    root: PathLike | None = None,
    split: str | None = None,
    label_map: Mapping[Any, Any] | PathLike | None = None,
    label_space: str | None = None,
    label_scale: float | None = None,
    subsets: Iterable[str] = (),
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Scores]:
    """Scores of a model: IoU per class and mIoU over one confusion matrix, in percent.

    One of three sets of labeled images: those of a ``recipe`` for scores, with its label maps and ``evaluation``;
    ``images`` and ``labels``; or a known ``dataset`` at ``root``.

    Args:
        model: a loaded model, or the path to a model folder.
        recipe: as for :func:`adapt`.
        images: path to a folder of images.
        labels: path to a folder of labels with the same relative names; without ``label_map`` they hold train ids.
        dataset: name of a known data set.
        root: path to that data set.
        split: path to a text file of stems; with ``dataset`` the name of a split.
        label_map: with ``images``: label values or '#rrggbb' to class names, train ids or 'ignore', as in a recipe. A
            mapping, the path to a YAML file, or text such as ``"0=background,255=crack"``.
        label_space: label space of the labels; default: the model's.
        label_scale: size of the scored labels / size of the files; with ``dataset`` only.
        subsets: further means, synthia16 or synthia13.
        report: gets a line for each remark, such as large images and a large share of pixels without a class.

    Returns:
        Scores by target, on test images under "TARGET test"; of folders and data sets under the name "images" or the
        data set's.

    Raises:
        InputError: the set is not complete, its files are not in order, the classes do not fit, or at most one class
            has pixels in the labels.
        TrainingError: an image does not fit into the device's memory.
    """
    predictor = model if isinstance(model, Predictor) else load_model(model)
    others = (images, labels, dataset, root, split, label_map, label_space, label_scale, *subsets)
    if recipe is not None:
        if any(value is not None for value in others):
            raise RecipeError(
                "evaluate: the recipe says what is scored and how; leave out images, labels, split, label map, label "
                "space, data set, root, label scale and subsets"
            )
        return _evaluate_recipe(predictor, recipe_of(recipe), report)
    folders = images is not None and labels is not None and dataset is None and root is None and label_scale is None
    if label_map is not None and (label_space is not None or not folders):
        raise RecipeError("evaluate: a label map belongs to images and labels, and takes the place of a label space")
    if dataset is not None and root is not None and images is None and labels is None:
        files = dataset_files(dataset, Path(root), split, label_scale or 1.0)
    elif folders:
        mapping = read_label_map(label_map) if label_map is not None else None
        space = space_of_labels(predictor, label_space)
        files = folder_files(Path(str(images)), Path(str(labels)), Path(split) if split else None, space, mapping)
    else:
        raise RecipeError(
            "evaluate: give a recipe, or images and labels, or a data set and its root (and then a label scale)"
        )
    for note in files.listing.notes:
        report(f"note: {note}")
    labeled, rule = scoring_of(predictor, files, tuple(subsets))
    name = dataset or "images"
    check_classes_occur(labeled, rule.space, f"evaluate: {name}")
    scored = score_sets(predictor.network, {name: labeled}, rule, Runtime(predictor.device, 0), report=report)
    return _with_warnings(scored, report)


def _evaluate_recipe(predictor: Predictor, recipe: Recipe, report: Callable[[str], None]) -> dict[str, Scores]:
    """Scores on each target's validation and test set, exactly as a run of the recipe scores its final model."""
    classes = training_space(recipe).classes
    if predictor.classes != classes:
        raise ModelError(
            f"the model predicts {', '.join(predictor.classes)}, but recipe {recipe.name} trains {', '.join(classes)}"
        )
    data, problems = list_data(recipe)
    sets = {**data.validation, **{f"{name} test": labeled for name, labeled in data.test.items()}}
    if not sets:
        raise RecipeError(f"recipe {recipe.name}: no target has a validation or test section to score on")
    places = [labeled.name.removesuffix(" (held out)") for labeled in data.scored]
    if not all(map(len, sets.values())) or any(place in problem for place in places for problem in problems):
        raise DataError(problem_list(f"recipe {recipe.name}: validation or test sets that cannot be used", problems))
    runtime = resolve_runtime(str(predictor.device), recipe.runtime.threads)
    rule = scoring_rule(recipe)
    for labeled in sets.values():
        check_classes_occur(labeled, rule.space, labeled.name, in_recipe=True)
    return _with_warnings(score_sets(predictor.network, sets, rule, runtime, report=report), report)


def _with_warnings(scored: dict[str, Scores], report: Callable[[str], None]) -> dict[str, Scores]:
    """The same scores; a warning for each set of which few pixels were scored."""
    for name, scores in scored.items():
        if scores.ignored is not None and scores.ignored >= _MUCH_IGNORED:
            report(
                f"warning: {name}: {scores.ignored:.1f} % of the pixels have no class in the labels and were not "
                "scored; if they should have one, correct the label map"
            )
    return scored
