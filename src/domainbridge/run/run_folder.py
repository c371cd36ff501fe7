"""Which folder a run may use, and whether what it needs from earlier starts is whole."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import yaml

from domainbridge.build.datasets import DataSets, data_root
from domainbridge.build.initial_model import init_folder
from domainbridge.build.recipe import stages_of
from domainbridge.config.domains import SourceConfig, TargetConfig
from domainbridge.config.schema import Recipe
from domainbridge.errors import RunFolderError, problem_list
from domainbridge.files import read_json
from domainbridge.run.graph import PlannedStage, final_stage
from domainbridge.run.label_free import stages_to_score
from domainbridge.run.lock import is_lock_file
from domainbridge.run.results import is_scored
from domainbridge.run.selection import candidates, selected_stage
from domainbridge.run.stage_files import DONE, damage

__all__ = ["check_images_apart", "check_needed_results", "check_run_folder", "environment_note"]


def check_run_folder(recipe: Recipe, folder: Path) -> None:
    """A run folder belongs to one recipe name, so that a typing slip cannot overwrite another run.

    Raises:
        RunFolderError: the folder is another recipe's, or holds something else.
    """
    start = init_folder(recipe)
    if start is not None and start.resolve().is_relative_to(folder.resolve()):
        raise RunFolderError(
            f"init: {start} lies in the run folder {folder}, which this run changes; choose another run folder with "
            "--out, or another name"
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunFolderError(f"{folder}: expected a run folder, found a file; choose another place with --out")
    names = {entry.name for entry in folder.iterdir()}
    path = folder / "recipe.yaml"
    if "recipe.yaml" not in names:
        if not all(map(is_lock_file, names)):
            raise RunFolderError(f"{folder}: exists and is not a run folder; choose another with --out")
        return
    if not any(map(is_lock_file, names)) and not _is_environment(folder / "environment.json"):
        raise RunFolderError(
            f"{folder}: holds a recipe.yaml but is not a run folder (no environment.json of a run beside it). "
            "Nothing of yours is changed; choose another with --out"
        )
    owner = _owner(path)
    if owner != recipe.name:
        raise RunFolderError(
            f"{folder}: belongs to recipe {owner!r}, not to {recipe.name!r}; choose another folder with --out"
        )
    blocked = [stage.name for stage in stages_of(recipe) if (folder / stage.name).is_file()]
    if blocked:
        raise RunFolderError(f"{folder}: {', '.join(blocked)}: expected folders of stages, found files; move them away")


def check_images_apart(recipe: Recipe, data: DataSets, folder: Path) -> None:
    """A run's pictures must not become data at the next start, nor images lie where a run writes.

    Raises:
        RunFolderError: the run folder and a domain's images lie in each other.
    """
    place = folder.resolve()
    root = data_root(recipe)
    problems = []
    domains: tuple[SourceConfig | TargetConfig, ...] = (*recipe.sources, *recipe.targets)
    for domain in domains:
        images = root / domain.root / (domain.images or "")
        if domain.images is not None and place.is_relative_to(images.resolve()):
            problems.append(f"it lies inside {images}, the images of {domain.name}: its pictures would become data")
    for files in data.domains:
        parents = {path.parent for path in chain(files.images, files.labels or ())}
        inside = next((parent for parent in parents if parent.resolve().is_relative_to(place)), None)
        if inside is not None:
            problems.append(f"it holds {inside}, files of {files.name}")
    if problems:
        raise RunFolderError(problem_list(f"{folder}: cannot be the run folder; choose another with --out", problems))


def check_needed_results(
    planned: Sequence[PlannedStage], wanted: Sequence[PlannedStage], recipe: Recipe, data: DataSets, folder: Path
) -> None:
    """See that the finished stages that this start reads are as they were written; every byte of them is read.

    Args:
        planned: all stages.
        wanted: the stages of this start.
        recipe: complete.
        data: its files.
        folder: of the run.

    Raises:
        RunFolderError: results are missing or damaged; all are listed.
    """
    needed: dict[str, str] = {}
    nodes = [item.node for item in planned]
    final, chosen = final_stage(nodes), selected_stage(nodes, recipe, folder)
    for item in wanted:
        if item.open:
            needed |= dict.fromkeys(item.node.spec.inputs, f"which {item.name} needs")
        elif not is_scored(item.node, chosen, recipe, data, folder):
            needed[item.name] = "which is to be scored"
    for item in wanted:
        for name in stages_to_score(item.node, nodes, recipe, folder):
            needed.setdefault(name, "which is to be scored without labels")
    if final in {item.name for item in wanted}:
        needed.setdefault(final, "the final one")
        if recipe.selection != "last":
            needed |= {name: "from which the final one is selected" for name in candidates(nodes) if name not in needed}
    problems = []
    for item in planned:
        if item.name in needed and not item.open:
            reason = damage(item.node.spec, (item.status.origin or folder) / item.name)
            if reason is not None:
                problems.append(f"stage {item.name}, {needed[item.name]}: {reason}")
    if problems:
        title = (
            f"{folder}: results of finished stages are missing or damaged. Restore the files, or delete the stage's "
            f"{DONE} to run it again"
        )
        raise RunFolderError(problem_list(title, problems))


def environment_note(old: dict[str, object] | None, new: dict[str, object]) -> str | None:
    """What differs from the machine of earlier starts, for the user; None if the numbers are computed alike."""
    if old is None:
        return None
    before, now = _arithmetic(old), _arithmetic(new)
    changes = [f"{name} {before[name]} -> {now[name]}" for name in now if before[name] not in (None, now[name])]
    if not changes:
        return None
    return (
        f"note: since the last start of this run: {', '.join(changes)}. Sums of floats are rounded otherwise, so the "
        "weights differ from those of an undisturbed run"
    )


def _arithmetic(environment: dict[str, object]) -> dict[str, object]:
    packages = environment.get("packages")
    torch = packages.get("torch") if isinstance(packages, dict) else None
    return {"torch": torch, **{name: environment.get(name) for name in ("device", "threads", "processes")}}


def _is_environment(path: Path) -> bool:
    packages = (read_json(path) or {}).get("packages")
    return isinstance(packages, dict) and "domainbridge" in packages


def _owner(path: Path) -> object:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise RunFolderError(
            f"{path}: cannot be read ({type(error).__name__}), so nobody knows whose run this is; restore the file, or "
            "choose another folder with --out"
        ) from error
    return content.get("name") if isinstance(content, dict) else None
