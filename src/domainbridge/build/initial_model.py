"""`init: MODEL`: a run that starts from a model which exists already, in the place of ImageNet weights."""

from dataclasses import asdict
from pathlib import Path

import torch

from domainbridge.build.datasets import image_rule
from domainbridge.build.label_space import training_space
from domainbridge.build.paths import below
from domainbridge.config.schema import Recipe
from domainbridge.config.sections import HeadConfig, NetworkConfig
from domainbridge.models.licenses import InitialWeights, initial_weights
from domainbridge.models.model_folder import load_model, read_model_config
from domainbridge.models.pretrained import load_checked
from domainbridge.models.segmenter import Segmenter

__all__ = ["architecture_of_init", "init_folder", "init_notes", "start_from_init", "weights_of_run"]


def init_folder(recipe: Recipe) -> Path | None:
    """The model folder that the run starts from, relative to the current folder; None: initial weights."""
    return None if recipe.init is None else below(Path(), recipe.init, "init")


def architecture_of_init(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with the network of its initial model, and the keys that contradict that network.

    A key of `model` that the recipe leaves out is that of the initial model. `model.weights` has no effect.

    Raises:
        ModelError: `init` names no model folder, or a damaged one.
        RecipeError: `init` is no path of this machine.
    """
    folder = init_folder(recipe)
    if folder is None:
        return recipe, []
    spec = read_model_config(folder).spec
    section = recipe.model.model_dump(exclude_unset=True, exclude={"weights"})
    head_section = section.pop("head", {})
    trained, trained_head = {"backbone": spec.backbone, "output_stride": spec.output_stride}, asdict(spec.head)
    pairs = [(f"model.{key}", value, trained[key]) for key, value in section.items() if key != "output_stride"]
    heads = [(f"model.head.{key}", value, trained_head[key]) for key, value in head_section.items() if key != "dropout"]
    problems = [
        f"{key}: {_shown(value)}, but the model of init ({folder}) has {_shown(expected)}; leave the key out, or set "
        f"{key}={_shown(expected)}"
        for key, value, expected in (*pairs, *heads)
        if value != expected
    ]
    # The output stride and the dropout leave no trace in weights: these two are the recipe's to choose.
    head = HeadConfig.model_construct(**{**trained_head, "dropout": head_section.get("dropout", spec.head.dropout)})
    network = NetworkConfig.model_construct(**{**trained, **section, "weights": "none", "head": head})
    return recipe.model_copy(update={"model": network}), problems


def _shown(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def start_from_init(student: Segmenter, folder: Path, classes: tuple[str, ...]) -> None:
    """Give a network the weights of a model; a class that the model does not predict keeps its drawn row.

    Args:
        student: of the same architecture, for ``classes``; changed in place.
        folder: of the model.
        classes: K names.

    Raises:
        ModelError: the folder is damaged, or the weights are of another architecture.
    """
    model, config = load_model(folder)
    weights = model.state_dict()
    rows = torch.tensor([config.classes.index(name) if name in config.classes else -1 for name in classes])
    known = rows >= 0
    for name, drawn in student.head.classifier.state_dict().items():  # (K, channels, 1, 1) and (K,)
        merged = drawn.clone()
        merged[known] = weights[f"head.classifier.{name}"][rows[known]]
        weights[f"head.classifier.{name}"] = merged
    load_checked(student, weights, str(folder))


def weights_of_run(recipe: Recipe) -> InitialWeights | None:
    """What the run's networks begin with, and its license; with `init`, what that model began with.

    Raises:
        ModelError: `init` names no model folder, or a damaged one.
    """
    folder = init_folder(recipe)
    if folder is not None:
        return read_model_config(folder).initial_weights
    return initial_weights(recipe.model.backbone, recipe.model.weights)


def init_notes(recipe: Recipe) -> list[str]:
    """What to know before a run starts from the initial model, a sentence each.

    Raises:
        ModelError: as for :func:`architecture_of_init`.
    """
    folder = init_folder(recipe)
    if folder is None:
        return []
    config, classes = read_model_config(folder), training_space(recipe).classes
    fresh = [name for name in classes if name not in config.classes]
    gone = [name for name in config.classes if name not in classes]
    known = len(classes) - len(fresh)
    notes = [f"init: {known} of {len(classes)} classes have the weights of {folder}"]
    if fresh:
        notes[0] += f"; drawn anew: {', '.join(fresh)}"
    if gone:
        notes.append(f"init: classes of {folder} that this recipe does not predict: {', '.join(gone)}")
    if config.image != image_rule(recipe.targets[0]):
        notes.append(
            f"init: {folder} was trained on images read with {asdict(config.image)}, this recipe reads its target with "
            f"{asdict(image_rule(recipe.targets[0]))}; see scale, percentiles, bands and exif"
        )
    return notes
