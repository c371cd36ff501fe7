"""``suggest``: a run's models say which images of a target are worth labeling."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from domainbridge.build.datasets import data_root, open_data
from domainbridge.build.paths import below
from domainbridge.build.recipe import load_recipe
from domainbridge.config.domains import TargetConfig
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.storage.tar import is_archives
from domainbridge.errors import DataError, RecipeError, RunFolderError
from domainbridge.evaluation.predictor import Predictor
from domainbridge.models.model_folder import load_model
from domainbridge.run.graph import Node, final_stage, stage_graph
from domainbridge.run.stage_status import StageState
from domainbridge.runtime.device import resolve_runtime
from domainbridge.tools.suggest import rank_images
from domainbridge.tools.suggestions import Suggestions, check_free, write_suggestions

__all__ = ["models_to_compare", "path_model_folders", "suggest"]


def models_to_compare(nodes: Sequence[Node], folder: Path) -> list[str]:
    """The last two finished training stages that do the same work from the same inputs, i.e. the two paths of a round.

    Without such a pair: the last finished training stage.

    Raises:
        RunFolderError: no training stage is finished.
    """
    names = [node.name for node in nodes]
    of_method = nodes[: names.index(final_stage(nodes)) + 1]  # what comes later is no part of the adaptation
    finished = [
        node for node in of_method if node.training is not None and StageState.read(folder / node.name).done is not None
    ]
    if not finished:
        raise RunFolderError(f"{folder}: no training stage is finished; run the recipe first")
    extended = {node.spec.extends for node in finished}
    finished = [node for node in finished if node.name not in extended]
    inputs = {node.name: node.spec.inputs for node in nodes}
    work = {node.name: (node.spec.kind, inputs[node.spec.extends or node.name]) for node in finished}
    alike = [[one, other] for one, other in pairwise(work) if work[one] == work[other]]
    return alike[-1] if alike else [finished[-1].name]


def path_model_folders(model: Path) -> list[Path]:
    """The model folders of the two paths of the last finished round.

    Args:
        model: ``RUN/model`` or ``RUN/STAGE/model``.

    Raises:
        RunFolderError: the folder lies in no run folder, or the run has no finished round of two paths.
    """
    folder = model.absolute()
    run = next((each for each in folder.parents[:2] if (each / "recipe.yaml").is_file()), None)
    if run is None:
        raise RunFolderError(
            f"{model}: lies in no run folder, so the two paths that trained it are not known; give RUN/model"
        )
    names = models_to_compare(stage_graph(load_recipe(str(run / "recipe.yaml")), None), run)
    if len(names) < 2:
        raise RunFolderError(f"{run}: no finished round of two paths whose disagreement could be shown")
    return [run / name / "model" for name in names]


def suggest(
    run: Path | str,
    out: Path | str,
    count: int = 20,
    *,
    target: str | None = None,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write a split file, a picture and labeling tasks of the target images that are most worth a label.

    These are images on which the two path models of the last finished round disagree (of a single model: with large
    entropy), and that are far from each other in the models' features.

    Args:
        run: path to a run folder.
        out: path to a folder, made when missing; files there that an earlier call wrote are replaced, no others.
        count: how many images.
        target: name; None where the recipe has one target.
        device: auto, cpu, cuda, cuda:1 ...
        report: gets a line for each remark.
        progress: called with (done, total) after every image.

    Returns:
        Names of the images as they stand in the split file, the most worthwhile first.

    Raises:
        InputError: no run folder, no finished stage, no such target, missing images, or foreign files in ``out``;
            nothing was written.
        StorageError: a file cannot be written.
    """
    run, out = Path(run), Path(out)
    path = run / "recipe.yaml"
    if not path.is_file():
        raise RunFolderError(f"{run}: not a run folder (no recipe.yaml); give a folder such as runs/NAME")
    recipe = load_recipe(str(path))
    compared = models_to_compare(stage_graph(recipe, None), run)
    position = _position(recipe, target)
    check_free(out)
    files = open_data(recipe).targets[position]
    names = _names(recipe, recipe.targets[position], files)
    files, names = _listable(files, names, report)
    runtime = resolve_runtime(device, recipe.runtime.threads)
    models = [runtime.place(load_model(run / stage / "model")[0], channels_last=True).eval() for stage in compared]
    last, config = load_model(run / "model" if (run / "model/config.json").is_file() else run / compared[-1] / "model")
    predictor = Predictor(runtime.place(last, channels_last=True), config)
    what = f"disagreement of {' and '.join(compared)}" if len(compared) > 1 else f"entropy of {compared[0]}"
    report(f"{len(names)} images of {recipe.targets[position].name}, by {what}")
    ranking = rank_images(models, files, runtime, progress)
    if ranking.tells_nothing:
        report("note: the models agree on every pixel, so the images are chosen by their differences alone")
    chosen = ranking.choose(count)
    write_suggestions(out, Suggestions(names, chosen, ranking), files, models, predictor, report)
    return [names[index] for index in chosen]


def _position(recipe: Recipe, target: str | None) -> int:
    names = [each.name for each in recipe.targets]
    if target is None and len(names) == 1:
        return 0
    if target not in names:
        asked = "several targets" if target is None else f"no target {target!r}"
        raise RecipeError(f"suggest: recipe {recipe.name} has {asked}; give --target with one of {', '.join(names)}")
    return names.index(target)


def _names(recipe: Recipe, target: TargetConfig, files: FileDataset) -> list[str]:
    """Paths as a split file of the target has them: below its images folder; of a known layout below its root."""
    folder = below(data_root(recipe), target.root, "targets.root")
    if target.images is not None:
        folder = below(folder, target.images, "targets.images")
    base = folder.parent if is_archives(folder) else folder
    return [image.relative_to(base).as_posix() for image in files.images]


def _listable(files: FileDataset, names: list[str], report: Callable[[str], None]) -> tuple[FileDataset, list[str]]:
    """The images whose names can stand in a line of text; others are left out, and counted."""
    usable = [number for number, name in enumerate(names) if name.isprintable()]
    if len(usable) < len(names):
        example = next(name for name in names if not name.isprintable())
        report(f"note: {len(names) - len(usable)} images have names that no text file can list, e.g. {example!r}")
    if not usable:
        raise DataError(f"{files.name}: no image to choose from")
    images = tuple(files.images[number] for number in usable)
    return replace(files, images=images), [names[number] for number in usable]
