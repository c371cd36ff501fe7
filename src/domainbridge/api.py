"""The Python interface: adapt, load a model, evaluate, predict. The command line calls the same functions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from domainbridge.build.datasets import list_data
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.errors import DataError, ModelError, RecipeError, RunFolderError, problem_list
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.evaluate import score_sets
from domainbridge.evaluation.label_maps import check_classes_occur, read_label_map
from domainbridge.evaluation.labeled_files import dataset_files, folder_files, scoring_of, space_of_labels
from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.models.model_folder import load_model as load_model_folder
from domainbridge.report.write import ReportCallback, write_report
from domainbridge.report.write_cards import CardCallback
from domainbridge.run.callbacks.base import CALLBACKS, NullCallback
from domainbridge.run.path_models import path_model_folders
from domainbridge.run.results import Results, read_results
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import Runtime, resolve_runtime
from domainbridge.runtime.torchrun import joined_processes, recorded
from domainbridge.tools.distill_recipe import distillation_tree
from domainbridge.tools.hub import local_model
from domainbridge.tools.open_model import open_model
from domainbridge.tools.predict import predict_files
from domainbridge.tools.predict_options import PredictOptions, class_ids, given_ids

__all__ = ["Run", "adapt", "distill", "evaluate", "load_model", "predict", "recipe_of"]

PathLike = Path | str

_MUCH_IGNORED = 50.0
"""Percent of pixels without a class from which a warning is given."""


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


def load_model(
    folder: PathLike,
    *,
    slide: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: str = "float32",
) -> Predictor:
    """A model folder as an ``nn.Module`` with ``classes``, ``palette``, ``predict`` and ``predict_probabilities``.

    Args:
        folder: path to a folder with model.safetensors and config.json, e.g. ``runs/NAME/model``; or ``USER/NAME`` or
            ``USER/NAME@REVISION`` of a model on the Hugging Face hub, fetched into the cache of huggingface_hub.
        slide: sliding windows of 512x512 instead of the whole image.
        flip: average with the mirrored image.
        scales: factors of the image's size at the network, such as (0.75, 1, 1.25); the result is the most probable
            class of the mean of all passes' softmax probabilities.
        device: auto, cpu, cuda, cuda:1 ...
        precision: float32, or bfloat16 and float16 under autocast.

    Raises:
        ModelError: no model folder, or a damaged one.
        RecipeError: no such device or precision, or scales that cannot be used.
        HubError: the hub cannot be reached, or huggingface_hub is not installed.
    """
    return load_predictor(
        local_model(folder), slide=slide, flip=flip, scales=scales, device=device, precision=precision
    )


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


def _with_warnings(scored: dict[str, Scores], report: Callable[[str], None]) -> dict[str, Scores]:
    """The same scores; a warning for each set of which few pixels were scored."""
    for name, scores in scored.items():
        if scores.ignored is not None and scores.ignored >= _MUCH_IGNORED:
            report(
                f"warning: {name}: {scores.ignored:.1f} % of the pixels have no class in the labels and were not "
                "scored; if they should have one, correct the label map"
            )
    return scored


def predict(
    model: SegmentationModel | PathLike,
    inputs: Iterable[PathLike] | PathLike,
    out: PathLike,
    *,
    overlay: bool = False,
    colors: bool = False,
    legend: bool = False,
    confidence: bool = False,
    probabilities: bool = False,
    disagreement: bool = False,
    polygons: Iterable[str] = (),
    min_area: int = 64,
    tolerance: float = 1.0,
    shares: bool = False,
    ids: str | Mapping[Any, Any] | None = None,
    frames: bool = False,
    every: int = 1,
    resume: bool = False,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> int:
    """Write a class map ``OUT/NAME.png`` (palette PNG, value = train id) for every image; the number of inputs.

    A georeferenced TIFF leads to georeferenced TIFFs, a video to a video (docs/predicting.md lists every output).
    Memory is bounded: an image of more than four megapixels at the network goes through overlapping windows, a video
    some frames at a time. A record in ``out`` lists what was written: later calls replace these files and no others.
    Below torchrun the processes share the inputs.

    Args:
        model: a loaded model or exported file, or the path to a model folder or to a file that ``export`` wrote.
        inputs: paths to images, videos, folders of both, patterns such as ``"photos/**/*.jpg"``, and text files that
            list any of these; a folder's inner structure is kept below ``out``.
        out: path to a folder, created when missing.
        overlay: also ``NAME_overlay.jpg``, the classes' colors over the image.
        colors: also ``NAME_colors.png``, the colors alone.
        legend: names of the classes below the overlay.
        confidence: also ``NAME_confidence.png``, 255 * the largest probability.
        probabilities: also ``NAME_probabilities.npz``, 255 * the probability of every class, uint8 (height, width,
            classes), and the names of the classes.
        disagreement: also ``NAME_disagreement.png``, 255 where the models of the run's two paths predict different
            classes; for the model of a run that has them.
        polygons: of ``geojson``, ``coco`` and ``labelme``.
        min_area: pixels of the smallest polygon.
        tolerance: pixels that a polygon's outline may be off.
        shares: also ``class-shares.csv``, percent of the pixels per input and class.
        ids: values in the class maps in the place of train ids: name of a data set (cityscapes, gta5, synscapes,
            synthia), or a label map, value to class name, as for :func:`evaluate`.
        frames: of a video, the class maps of its frames, in the folder ``NAME_frames``.
        every: of a video, take each frame of this number.
        resume: leave out inputs whose results are all there, made with the same model and options.
        report: gets a line for each remark: files left out, distinct names for images with one stem, images in windows.
        progress: called with (inputs done, of how many) of this process; a part of a large file counts as a part.

    Raises:
        InputError: nothing was written if an input is missing or a file that predict did not write would be replaced.
        SomeFilesError: files that cannot be read are listed at the end; all others were segmented.
        StorageError: a result cannot be written.
    """
    predictor = open_model(model) if isinstance(model, Path | str) else model
    paths = [Path(inputs)] if isinstance(inputs, Path | str) else [Path(path) for path in inputs]
    options = PredictOptions(
        overlay=overlay,
        colors=colors,
        legend=legend,
        confidence=confidence,
        probabilities=probabilities,
        disagreement=disagreement,
        polygons=tuple(polygons),
        min_area=min_area,
        tolerance=tolerance,
        shares=shares,
        ids=None if ids is None else class_ids(given_ids(ids), predictor.classes),
        frames=frames,
        every=every,
    )
    return predict_with(predictor, paths, Path(out), options, resume=resume, report=report, progress=progress)


def predict_with(
    model: SegmentationModel,
    inputs: Sequence[Path],
    out: Path,
    options: PredictOptions,
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> int:
    """The same with options as one value; see :func:`predict`."""
    both = _path_models(model) if options.disagreement else []
    with joined_processes("cpu") as processes:
        return predict_files(
            *(model, inputs, out, options),
            paths=both,
            resume=resume,
            processes=processes,
            report=report,
            progress=progress,
        )


def _path_models(predictor: SegmentationModel) -> list[Predictor]:
    """The models of the two paths, which see images as the predictor does.

    Raises:
        RunFolderError: the model belongs to no run with two paths.
    """
    if not isinstance(predictor, Predictor) or predictor.folder is None:
        raise RunFolderError("disagreement: load the model from its folder in a run; RUN/model")
    models = []
    for folder in path_model_folders(predictor.folder):
        network, config = load_model_folder(folder)
        network = network.to(predictor.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        models.append(Predictor(network, config, predictor.rule))
        models[-1].resize, models[-1].image_rule = predictor.resize, predictor.image_rule
    return models


def recipe_of(
    recipe: Recipe | PathLike | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    data_root: PathLike | None = None,
) -> Recipe:
    """The loaded recipe; see :func:`adapt`.

    Raises:
        RecipeError: keys or values are wrong; all problems are listed.
    """
    changes = dict(overrides or {})
    if data_root is not None:
        changes["data_root"] = str(data_root)
    if isinstance(recipe, Recipe):
        if set(changes) - {"data_root"}:
            raise RecipeError("overrides: a loaded recipe does not change; give its name, its file or its values")
        return recipe.model_copy(update=changes)
    arguments = [f"{key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in changes.items()]
    arguments = [argument.removesuffix("\n...") for argument in arguments]
    if isinstance(recipe, Mapping):
        return parse_recipe(dict(recipe), arguments)
    return load_recipe(str(recipe), arguments)


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
    places = [f"{labeled.name.removesuffix(' (held out)')}" for labeled in data.scored]
    if not all(map(len, sets.values())) or any(place in problem for place in places for problem in problems):
        raise DataError(problem_list(f"recipe {recipe.name}: validation or test sets that cannot be used", problems))
    runtime = resolve_runtime(str(predictor.device), recipe.runtime.threads)
    rule = scoring_rule(recipe)
    for labeled in sets.values():
        check_classes_occur(labeled, rule.space, labeled.name, in_recipe=True)
    return _with_warnings(score_sets(predictor.network, sets, rule, runtime, report=report), report)
