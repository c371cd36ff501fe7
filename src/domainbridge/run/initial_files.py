"""Digests of the weight files that stages begin with."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from domainbridge.build.initial_model import init_folder
from domainbridge.build.stage_network import stage_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.digests import file_digests, file_states
from domainbridge.errors import ModelError
from domainbridge.methods.base import StageSpec, TrainingStage
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS
from domainbridge.models.pretrained_files import local_file

__all__ = ["begins_with_pretrained", "model_digest", "pretrained_files", "weights_digest"]


def begins_with_pretrained(recipe: Recipe, spec: StageSpec) -> bool:
    """Whether a stage starts a network from ``weights: pretrained``."""
    changed = stage_recipe(recipe, spec)
    fresh = isinstance(spec, TrainingStage) and spec.init is None and init_folder(changed) is None
    return fresh and changed.model.weights == "pretrained"


def pretrained_files(recipe: Recipe, spec: StageSpec, inputs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Backbone -> digest of the file of ``weights: pretrained`` that a stage or its inputs begin with.

    Args:
        recipe: complete.
        spec: the stage.
        inputs: the same of the stages that it reads.
    """
    files = {name: digest for of_input in inputs for name, digest in of_input.items()}
    if begins_with_pretrained(recipe, spec):
        backbone = stage_recipe(recipe, spec).model.backbone
        try:
            path = local_file(backbone)
        except ModelError:  # said when the network is built
            path = None
        known = None if path is None else weights_digest(path)
        files |= {} if known is None else {backbone: known}
    return files


def model_digest(folder: Path) -> list[str | None]:
    """Of the weights and the description of a model folder."""
    return [weights_digest(folder / name) for name in (WEIGHTS, DESCRIPTION)]


def weights_digest(path: Path) -> str | None:
    """Of a file's content; None when there is no such file."""
    if not path.is_file():
        return None
    name = str(path.absolute())
    return file_digests("model.weights", [name], file_states("model.weights", [name]), [True])[0]
