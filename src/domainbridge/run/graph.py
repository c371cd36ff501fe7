"""The stages of a run with their hashes; which are done, which are half done, which run and why."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbridge.build.batches import batchnorm_count
from domainbridge.build.datasets import DataSets, data_root
from domainbridge.build.given_models import given_model
from domainbridge.build.initial_model import init_folder
from domainbridge.build.recipe import stages_of, training_config
from domainbridge.build.stage_network import stage_recipe
from domainbridge.build.target_sections import labeled_sections
from domainbridge.config.schema import Recipe
from domainbridge.config.training import LATER_KEYS, TrainingConfig
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.errors import RecipeError
from domainbridge.files import digest
from domainbridge.methods.base import AdaBNStage, ModelStage, PrototypeStage, StageSpec, TrainingStage
from domainbridge.run.callbacks.jsonl import seconds_per_step
from domainbridge.run.initial_files import model_digest, pretrained_files, weights_digest
from domainbridge.run.stage_status import UNKNOWN_FILES, StageState, StageStatus, status_of

__all__ = [
    "Node",
    "PlannedStage",
    "final_stage",
    "kept_runs",
    "learns_from_target_labels",
    "measured_seconds",
    "plan",
    "selected",
    "stage_graph",
]

_NO_EFFECT = {"log_every", "checkpoint_every", "activation_checkpointing"}
"""Keys of `training` that change no result."""


_PLAIN_CROPS = [("scale", [1.0, 1.0]), ("target_scale", [1.0, 1.0])]
"""Later keys of `crop` with their defaults, likewise no part of a hash."""


@dataclass(frozen=True)
class Node:
    """A stage of a run, with everything that its result depends on.

    Attributes:
        spec: the stage.
        training: its settings of `training`; None for a stage that does not train.
        values: every value that its result depends on, beside its inputs; keys are named as in the recipe.
        fingerprint: hash of ``values`` and of the inputs' fingerprints.
        steps: training steps, or batches of a stage that does not train when the data is known.
        pretrained: backbone -> digest of the file of ``weights: pretrained`` that this stage or an earlier one which it
            reads begins with; a backbone whose file is not on this machine is left out. No part of ``fingerprint``: a
            finished stage stays finished where nobody knows the file any more.
    """

    spec: StageSpec
    training: TrainingConfig | None
    values: dict[str, Any]
    fingerprint: str
    steps: int | None
    pretrained: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the stage."""
        return self.spec.name

    @property
    def keeps_model(self) -> bool:
        """Whether the stage's result is a model, which is scored."""
        return isinstance(self.spec, TrainingStage | AdaBNStage | ModelStage)


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
            values |= _training_values(stage_recipe(recipe, spec), spec, training)
            values |= (
                {"oracle": _oracle_domains(recipe, data)} if learns_from_target_labels(spec) else {"sources": sources}
            )
        elif isinstance(spec, ModelStage):
            values["model"] = {"files": model_digest(given_model(spec))}
        else:
            values["training"] = {"batch_size": recipe.training.batch_size}
        if isinstance(spec, AdaBNStage):
            values["sampling"] = {"domain_temperature": recipe.sampling.domain_temperature}
        inputs = {name: nodes[name].fingerprint for name in spec.inputs}
        fingerprint = digest({"values": values, "inputs": inputs})
        steps = _steps(recipe, spec, training, data)
        pretrained = pretrained_files(recipe, spec, [nodes[name].pretrained for name in spec.inputs])
        nodes[spec.name] = Node(spec, training, values, fingerprint, steps, pretrained)
    return list(nodes.values())


def plan(nodes: Iterable[Node], folder: Path) -> list[PlannedStage]:
    """What a run would do in ``folder`` with each stage; nothing is changed."""
    kept = kept_runs(folder)
    rerun: set[str] = set()
    planned = []
    for node in nodes:
        status = status_of(node, folder, kept, rerun)
        if status.action != "done":
            rerun.add(node.name)
        planned.append(PlannedStage(node, status))
    return planned


def kept_runs(folder: Path) -> list[Path]:
    """``NAME.1``, ``NAME.2`` ... beside a run folder, the newest first: runs of another configuration."""
    place = folder if folder.name else folder.absolute()
    pattern = re.compile(re.escape(place.name) + r"\.(\d+)")
    try:
        names = [path.name for path in place.absolute().parent.iterdir()]
    except OSError:
        return []
    numbers = sorted((int(match[1]) for name in names if (match := pattern.fullmatch(name))), reverse=True)
    return [place.with_name(f"{place.name}.{number}") for number in numbers]


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
    """The stage whose student is the run's result: the last one that trains without labels of the target."""
    return [node.name for node in nodes if node.training is not None and not learns_from_target_labels(node.spec)][-1]


def learns_from_target_labels(spec: StageSpec) -> bool:
    """Whether the stage is an upper bound: no result, and nothing that another stage may use."""
    return isinstance(spec, TrainingStage) and spec.supervision == "target"


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
    training = values.get("training")
    if not isinstance(training, dict):
        return []
    keys = ("batch_size", "gradient_accumulation_steps", "precision", "trunk")
    return [values.get("crop"), values.get("model"), *(training.get(key) for key in keys)]


def _shared_values(recipe: Recipe, data: DataSets | None) -> dict[str, Any]:
    """Values that the result of every stage depends on."""
    tree = recipe.model_dump(mode="json", include={"seed", "method", "fidelity", "label_space", "crop", "targets"})
    tree["targets"] = _domains(tree["targets"], data.targets if data else None)
    tree["crop"] = {key: value for key, value in tree["crop"].items() if (key, value) not in _PLAIN_CROPS}
    if recipe.cache.folder is not None and recipe.cache.format == "jpeg":
        tree["cache"] = {"format": "jpeg", "quality": recipe.cache.quality}  # lossless copies change nothing
    return tree


def _training_values(recipe: Recipe, spec: TrainingStage, training: TrainingConfig) -> dict[str, Any]:
    """Values that the result of a training stage depends on, beside the shared ones."""
    tree = recipe.model_dump(mode="json", include={"model", "sampling"})
    no_effect = _NO_EFFECT if spec.uses_target else _NO_EFFECT | {"adapt_batchnorm", "early_stopping"}
    unset = {key for key in LATER_KEYS if getattr(training, key) == TrainingConfig.model_fields[key].default}
    initial_model = init_folder(recipe)
    init = {} if initial_model is None else {"init": {"files": model_digest(initial_model)}}
    return {
        **init,
        "training": training.model_dump(mode="json", exclude=no_effect | unset),
        "model": {**tree["model"], "weights_file": weights_digest(data_root(recipe) / recipe.model.weights)},
        "sampling": tree["sampling"],
        **({"rare_classes": "beside fixed shares"} if _rare_beside_shares(recipe) else {}),
        **({"target_scale": "without sources"} if _scaled_without_sources(recipe, spec) else {}),
    }


def _rare_beside_shares(recipe: Recipe) -> bool:
    """Recipes in which a fixed share had no effect once."""
    return recipe.sampling.rare_classes and any(source.share is not None for source in recipe.sources)


def _scaled_without_sources(recipe: Recipe, spec: TrainingStage) -> bool:
    """Stages in which the scale jitter of the target crops had no effect once."""
    return spec.supervision == "none" and ("target_scale", list(recipe.crop.target_scale)) not in _PLAIN_CROPS


def _steps(recipe: Recipe, spec: StageSpec, training: TrainingConfig | None, data: DataSets | None) -> int | None:
    if training is not None:
        return training.steps
    batch_size = recipe.training.batch_size
    if data is not None and isinstance(spec, PrototypeStage):
        return -(-len(data.target) * spec.config.passes // batch_size)
    if isinstance(spec, ModelStage):
        return 0
    if data is not None and isinstance(spec, AdaBNStage):
        return batchnorm_count(batch_size, len(data.target))
    return None


def _oracle_domains(recipe: Recipe, data: DataSets | None) -> dict[str, Any]:
    """The labeled target images of stage oracle, as :func:`_domains` gives sources."""
    sections = {target.name: labeled_sections(target).get("oracle") for target in recipe.targets}
    trees = [{"name": name, **section.model_dump(mode="json")} for name, section in sections.items() if section]
    return _domains(trees, tuple(data.oracle.values()) if data else None)


def _domains(trees: list[dict[str, Any]], datasets: tuple[Any, ...] | None) -> dict[str, Any]:
    """Domains by name without their places on disk, with a fingerprint of their files."""
    left_out = {"root", "license", "validation", "test", "oracle", "few"}
    named = {}
    for position, tree in enumerate(trees):
        files = files_fingerprint(datasets[position]) if datasets is not None else UNKNOWN_FILES
        kept = {k: v for k, v in tree.items() if k not in left_out and (k, v) != ("share", None)}
        named[tree["name"]] = {**kept, "files": files}
    return named
