"""A recipe as stages, each with inputs and a fingerprint; what is done, what is half done, what is to do and why."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from domainbridge.config.schema import Recipe
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.pipeline.datasets import DataSets, data_root

__all__ = [
    "Stage",
    "StageState",
    "Verdict",
    "digest",
    "final_stage",
    "plan_stages",
    "read_json",
    "stage_spec",
    "verdict",
]

Kind = Literal["source-only", "cut", "class", "prototypes", "distil"]
_UNSPECIFIED = ("log_every", "checkpoint_every", "recompute")


@dataclass(frozen=True)
class Stage:
    """One step of the run.

    Attributes:
        name: also of its folder.
        kind: what it does.
        init: stage whose student it starts from; None: initial weights.
        teachers: stages whose students it reads.
        prototypes: stage whose prototypes it reads.
        spec: every value that its result depends on.
        fingerprint: of ``spec`` and of the inputs' fingerprints.
        steps: training steps, or batches of a prototype stage when the data is known.
    """

    name: str
    kind: Kind
    init: str | None
    teachers: tuple[str, ...]
    prototypes: str | None
    spec: dict[str, Any]
    fingerprint: str
    steps: int | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """All stages that must be done before."""
        return tuple(name for name in (self.init, *self.teachers, self.prototypes) if name is not None)

    @property
    def trains(self) -> bool:
        """Whether it leaves a model."""
        return self.kind != "prototypes"


@dataclass(frozen=True)
class Verdict:
    """What would happen to a stage, and why.

    Attributes:
        action: done = skip it; resume = go on from its checkpoint; run = from its beginning.
        reason: in words.
    """

    action: Literal["done", "resume", "run"]
    reason: str


@dataclass(frozen=True)
class StageState:
    """What a stage's folder says."""

    done: dict[str, Any] | None
    started: dict[str, Any] | None

    @classmethod
    def read(cls, folder: Path) -> "StageState":
        """Missing or unreadable files count as absent: the stage is then made again."""
        return cls(read_json(folder / "done.json"), read_json(folder / "started.json"))


def plan_stages(recipe: Recipe, data: DataSets | None) -> list[Stage]:
    """The stages in an order in which they can run.

    Args:
        recipe: complete.
        data: its files; None plans without them, with fingerprints that no finished stage has.
    """
    stages: dict[str, Stage] = {}

    def add(
        name: str,
        kind: Kind,
        init: str | None = None,
        teachers: tuple[str, ...] = (),
        bank: str | None = None,
    ) -> None:
        spec = stage_spec(recipe, name, kind, data)
        inputs = {key: stages[key].fingerprint for key in (init, *teachers, bank) if key is not None}
        fingerprint = digest({"spec": spec, "inputs": inputs})
        stages[name] = Stage(name, kind, init, teachers, bank, spec, fingerprint, _steps(recipe, name, kind, data))

    if recipe.source_only:
        add("source-only", "source-only")
    previous = "source-only" if recipe.warm_start else None
    for number in range(1, recipe.rounds + 1):
        paths = (f"r{number}-cut", f"r{number}-class")
        add(paths[0], "cut", init=previous)
        add(paths[1], "class", init=previous)
        bank = f"r{number}-prototypes" if recipe.distillation.prototypes else None
        if bank is not None:
            add(bank, "prototypes", teachers=paths)
        # Published: from initial weights in every round. Warm starts go on from the latest student there is.
        latest = previous if recipe.warm_start else None
        previous = f"r{number}-distil"
        add(previous, "distil", init=latest, teachers=paths, bank=bank)
    return list(stages.values())


def final_stage(recipe: Recipe) -> str:
    """The stage whose student is the run's result."""
    return f"r{recipe.rounds}-distil"


def stage_spec(recipe: Recipe, name: str, kind: Kind, data: DataSets | None) -> dict[str, Any]:
    """Every value that the stage's result depends on, beside its inputs; keys are named as in the recipe."""
    tree = recipe.model_dump(mode="json")
    spec: dict[str, Any] = {
        "seed": tree["seed"],
        "fidelity": tree["fidelity"],
        "label_space": tree["label_space"],
        "crop": tree["crop"],
        "targets": _domains(tree["targets"], data.targets if data else None),
    }
    if recipe.cache.folder is not None and recipe.cache.format == "jpeg":
        spec["cache"] = {"format": "jpeg", "quality": recipe.cache.quality}  # lossless copies change nothing
    if kind == "prototypes":
        batch_size = recipe.training.batch_size
        return {**spec, "prototypes": tree["prototypes"], "training": {"batch_size": batch_size}}
    training = recipe.training_of(name).model_dump(mode="json")
    if training["accumulate"] == 1:
        del training["accumulate"]  # as in run folders from before there was that key
    if training["statistics"] == "running" or kind == "source-only":
        del training["statistics"]  # likewise; and source-only never sees the target
    spec["training"] = {key: value for key, value in training.items() if key not in _UNSPECIFIED}
    spec["sources"] = _domains(tree["sources"], data.sources if data else None)
    spec["model"] = {**tree["model"], "weights_file": _file_digest(data_root(recipe) / recipe.model.weights)}
    spec["sampling"] = tree["sampling"]
    if kind in ("cut", "class"):
        spec["self_training"] = tree["self_training"]
    if kind == "distil":
        spec["distillation"] = tree["distillation"]
    if kind != "source-only":
        spec["augmentation"] = tree["augmentation"]
    return spec


def verdict(stage: Stage, state: StageState, redone: set[str]) -> Verdict:
    """Decide about one stage.

    Args:
        stage: planned.
        state: of its folder.
        redone: names of stages that will be made (again) before it.
    """
    if state.done is not None and state.done.get("fingerprint") == stage.fingerprint:
        return Verdict("done", f"{state.done.get('steps')} steps in {state.done.get('seconds', 0):.0f} s")
    if state.started is not None and state.started.get("fingerprint") == stage.fingerprint:
        return Verdict("resume", f"from step {state.started.get('step', 0)}")
    waiting = [name for name in stage.inputs if name in redone]
    old = state.done or state.started
    if old is None:
        return Verdict("run", "not done yet")
    changes = _differences(old.get("spec", {}), stage.spec)
    if changes:
        return Verdict("run", "changed: " + "; ".join(changes[:4]) + (" ..." if len(changes) > 4 else ""))
    return Verdict("run", f"its input {' and '.join(waiting) or 'stage'} changed")


def _steps(recipe: Recipe, name: str, kind: Kind, data: DataSets | None) -> int | None:
    if kind != "prototypes":
        return recipe.training_of(name).steps
    if data is None:
        return None
    paths = 2
    return paths * -(-len(data.target) * recipe.prototypes.passes // recipe.training.batch_size)


def _domains(trees: list[dict[str, Any]], samples: tuple[Any, ...] | None) -> dict[str, Any]:
    """Domains by name without their places on disk, with a fingerprint of their files."""
    left_out = ("root", "validation")
    named = {}
    for position, tree in enumerate(trees):
        files = files_fingerprint(samples[position]) if samples is not None else "unknown"
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
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        inner = [_differences(old.get(n), new.get(n), f"{key}.{n}" if key else str(n)) for n in names]
        return [line for lines in inner for line in lines]
    return [] if old == new else [f"{key} {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def digest(content: Any) -> str:
    """Short hash of plain values, independent of the order of keys."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a JSON file; None when it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: no JSON, or no text at all
        return None
    return content if isinstance(content, dict) else None
