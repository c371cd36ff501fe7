"""The stages of a run with their hashes; which are done, which are half done, which run and why."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from domainbridge.build.datasets import DataSets, data_root
from domainbridge.build.recipe import stages_of, training_config
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import TrainingConfig
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import RecipeError
from domainbridge.files import digest, read_json
from domainbridge.methods.base import PrototypeStage, StageSpec, TrainingStage
from domainbridge.run.callbacks.jsonl import seconds_per_step

__all__ = [
    "Node",
    "PlannedStage",
    "StageState",
    "StageStatus",
    "final_stage",
    "measured_seconds",
    "plan",
    "selected",
    "stage_graph",
]

_NO_EFFECT = {"log_every", "checkpoint_every", "activation_checkpointing"}
"""Keys of `training` that change no result."""


@dataclass(frozen=True)
class Node:
    """A stage of a run, with everything that its result depends on.

    Attributes:
        spec: the stage.
        training: its settings of `training`; None for a stage that does not train.
        values: every value that its result depends on, beside its inputs; keys are named as in the recipe.
        fingerprint: hash of ``values`` and of the inputs' fingerprints.
        steps: training steps, or batches of a prototype stage when the data is known.
    """

    spec: StageSpec
    training: TrainingConfig | None
    values: dict[str, Any]
    fingerprint: str
    steps: int | None

    @property
    def name(self) -> str:
        """Of the stage."""
        return self.spec.name


@dataclass(frozen=True)
class StageStatus:
    """What a run does with a stage, and why.

    Attributes:
        action: done = skip; resume = go on from its checkpoint; run = from its beginning.
        reason: for the user.
    """

    action: Literal["done", "resume", "run"]
    reason: str


@dataclass(frozen=True)
class PlannedStage:
    """A stage and its status."""

    node: Node
    status: StageStatus

    @property
    def name(self) -> str:
        """Of the stage."""
        return self.node.name

    @property
    def open(self) -> bool:
        """Whether the stage is still to be done."""
        return self.status.action != "done"


@dataclass(frozen=True)
class StageState:
    """The contents of a stage's folder."""

    done: dict[str, Any] | None
    started: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "StageState":
        """Missing or unreadable files count as absent: the stage then runs again."""
        return cls(read_json(folder / "done.json"), read_json(folder / "started.json"))


def stage_graph(recipe: Recipe, data: DataSets | None) -> list[Node]:
    """The method's stages with their hashes, in an order in which they can run. Computed once per run.

    Args:
        recipe: complete.
        data: its files; None gives fingerprints that no finished stage has.
    """
    shared = _shared_values(recipe, data)
    sources = _domains(recipe.model_dump(mode="json")["sources"], data.sources if data else None)
    nodes: dict[str, Node] = {}
    for spec in stages_of(recipe):
        training = training_config(recipe, spec) if isinstance(spec, TrainingStage) else None
        values = {**shared, "stage": spec.name, **spec.settings}
        if isinstance(spec, TrainingStage) and training is not None:
            values |= _training_values(recipe, spec, training) | {"sources": sources}
        else:
            values["training"] = {"batch_size": recipe.training.batch_size}
        inputs = {name: nodes[name].fingerprint for name in spec.inputs}
        fingerprint = digest({"values": values, "inputs": inputs})
        nodes[spec.name] = Node(spec, training, values, fingerprint, _steps(recipe, spec, training, data))
    return list(nodes.values())


def plan(nodes: Iterable[Node], folder: Path) -> list[PlannedStage]:
    """What a run would do in ``folder`` with each stage; nothing is changed."""
    rerun: set[str] = set()
    planned = []
    for node in nodes:
        status = _status(node, StageState.read(folder / node.name), rerun)
        if status.action != "done":
            rerun.add(node.name)
        planned.append(PlannedStage(node, status))
    return planned


def selected(planned: list[PlannedStage], only: str | None, until: str | None) -> list[PlannedStage]:
    """The part of a plan that ``--only`` and ``--until`` leave.

    Raises:
        RecipeError: no such stage, or ``only`` needs a stage that is not done.
    """
    names = [item.name for item in planned]
    for option, name in (("--only", only), ("--until", until)):
        if name is not None and name not in names:
            raise RecipeError(f"{option} {name}: this recipe's stages are {', '.join(names)}")
    if until is not None:
        planned = planned[: names.index(until) + 1]
    if only is not None:
        todo = {item.name for item in planned if item.open}
        planned = [item for item in planned if item.name == only]
        if not planned:
            raise RecipeError(f"--only {only} comes after --until {until}")
        missing = [name for item in planned for name in item.node.spec.inputs if name in todo]
        if missing:
            raise RecipeError(f"--only {only}: needs {', '.join(missing)}, not done yet; run without --only first")
    return planned


def final_stage(nodes: Iterable[Node]) -> str:
    """The stage whose student is the run's result: the last one that trains."""
    return [node.name for node in nodes if node.training is not None][-1]


def measured_seconds(nodes: Iterable[Node], folder: Path) -> dict[str, float]:
    """Seconds per step of earlier starts in ``folder``, by stage; steps of another size are left out."""
    measured = {}
    for node in nodes:
        state = StageState.read(folder / node.name)
        old = (state.done or state.started or {}).get("values")
        seconds = seconds_per_step(folder / node.name)
        if node.training is not None and seconds is not None and _step_size(old) == _step_size(node.values):
            measured[node.name] = seconds
    return measured


def _step_size(values: Any) -> list[Any]:
    """What the seconds of a step depend on."""
    if not isinstance(values, dict):
        return []
    training = values.get("training", {})
    keys = ("batch_size", "gradient_accumulation_steps", "precision")
    return [values.get("crop"), values.get("model"), *(training.get(key) for key in keys)]


def _shared_values(recipe: Recipe, data: DataSets | None) -> dict[str, Any]:
    """Values that the result of every stage depends on."""
    tree = recipe.model_dump(mode="json", include={"seed", "method", "fidelity", "label_space", "crop", "targets"})
    tree["targets"] = _domains(tree["targets"], data.targets if data else None)
    if recipe.cache.folder is not None and recipe.cache.format == "jpeg":
        tree["cache"] = {"format": "jpeg", "quality": recipe.cache.quality}  # lossless copies change nothing
    return tree


def _training_values(recipe: Recipe, spec: TrainingStage, training: TrainingConfig) -> dict[str, Any]:
    """Values that the result of a training stage depends on, beside the shared ones."""
    tree = recipe.model_dump(mode="json", include={"model", "sampling"})
    no_effect = _NO_EFFECT if spec.uses_target else _NO_EFFECT | {"adapt_batchnorm"}
    return {
        "training": training.model_dump(mode="json", exclude=no_effect),
        "model": {**tree["model"], "weights_file": _file_digest(data_root(recipe) / recipe.model.weights)},
        "sampling": tree["sampling"],
    }


def _status(node: Node, state: StageState, rerun: set[str]) -> StageStatus:
    """Decide about one stage.

    Args:
        node: the stage.
        state: of its folder.
        rerun: names of the stages that run (again) before it.
    """
    if state.done is not None and state.done.get("fingerprint") == node.fingerprint:
        return StageStatus("done", f"{state.done.get('steps')} steps in {state.done.get('seconds', 0):.0f} s")
    if state.started is not None and state.started.get("fingerprint") == node.fingerprint:
        return StageStatus("resume", f"from step {state.started.get('step', 0)}")
    old = state.done or state.started
    if old is None:
        return StageStatus("run", "not done yet")
    changes = _differences(old.get("values", {}), node.values)
    if changes:
        return StageStatus("run", "changed: " + "; ".join(changes[:4]) + (" ..." if len(changes) > 4 else ""))
    inputs = [name for name in node.spec.inputs if name in rerun]
    return StageStatus("run", f"its input {' and '.join(inputs) or 'stage'} changed")


def _steps(recipe: Recipe, spec: StageSpec, training: TrainingConfig | None, data: DataSets | None) -> int | None:
    if training is not None:
        return training.steps
    if data is None or not isinstance(spec, PrototypeStage):
        return None
    return len(spec.students) * -(-len(data.target) * spec.config.passes // recipe.training.batch_size)


def _domains(trees: list[dict[str, Any]], datasets: tuple[Any, ...] | None) -> dict[str, Any]:
    """Domains by name without their places on disk, with a fingerprint of their files."""
    left_out = ("root", "validation")
    named = {}
    for position, tree in enumerate(trees):
        files = files_fingerprint(datasets[position]) if datasets is not None else "unknown"
        named[tree["name"]] = {**{k: v for k, v in tree.items() if k not in left_out}, "files": files}
    return named


def _file_digest(path: Path) -> str | None:
    """Of a file's content; None when there is no such file."""
    if not path.is_file():
        return None
    status = path.stat()
    return _content_digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _content_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:24]


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        inner = [_differences(old.get(n), new.get(n), f"{key}.{n}" if key else str(n)) for n in names]
        return [line for lines in inner for line in lines]
    return [] if old == new else [f"{key} {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
