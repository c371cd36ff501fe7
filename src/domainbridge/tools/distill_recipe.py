"""The recipe behind ``domainbridge distill``: teachers and images as they are named on the command line."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from domainbridge.build.datasets import resolved_root
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError
from domainbridge.models.model_folder import ModelConfig, read_model_config

__all__ = ["distillation_tree"]

_OF_A_RECIPE = {"sources", "targets", "label_space", "crop", "sampling", "evaluation", "training", "seed", "cache"}
_RESIZE = ("width", "height", "keep_ratio", "min_side")


def distillation_tree(
    models: Sequence[Path],
    name: str,
    backbone: str,
    *,
    weights: str = "none",
    target: Path | None = None,
    source: Path | None = None,
    source_labels: Path | None = None,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Keys and values of a recipe of method ``distill-models``.

    Args:
        models: finished model folders, the teachers.
        name: of the recipe.
        backbone: of the student.
        weights: initial ones of the backbone.
        target: folder of unlabeled images; read and resized as the first teacher was trained.
        source: folder of labeled images, with
        source_labels: a folder of their labels, train ids of the teachers' classes.
        recipe: in the place of the folders: its sources, targets, label space and training.

    Raises:
        ModelError: a teacher is no model folder.
        RecipeError: neither target nor recipe, or both; source without labels.
    """
    if (target is None) == (recipe is None):
        raise RecipeError("distill: expected --target DIR or --recipe RECIPE, one of the two")
    if (source is None) != (source_labels is None):
        raise RecipeError("distill: --source DIR and --source-labels DIR belong together; give both, or none of them")
    if recipe is not None and source is not None:
        raise RecipeError("distill: --recipe has sources of its own; leave --source out")
    tree: dict[str, Any] = {
        "name": name,
        "method": "distill-models",
        "teachers": [str(model) for model in models],
        "model": {"backbone": backbone, "weights": weights},
    }
    if recipe is not None:
        shared = recipe.model_dump(mode="json", include=_OF_A_RECIPE, exclude_unset=True)
        return {**shared, "data_root": resolved_root(recipe), **tree}
    config = read_model_config(models[0])
    rule = _reading(config)
    tree["label_space"] = {
        "name": config.label_space,
        "classes": list(config.classes),
        "colors": [list(color) for color in config.colors],
    }
    assert target is not None
    tree["targets"] = [{"name": "target", "root": str(target.absolute()), "images": ".", **rule}]
    if source is not None and source_labels is not None:
        place = {"root": str(source.absolute()), "images": ".", "labels": str(source_labels.absolute())}
        tree["sources"] = [{"name": "source", **place, **rule}]
    return tree


def _reading(config: ModelConfig) -> dict[str, Any]:
    """How a model's images become its input, as keys of a domain."""
    rule = {key: value for key, value in asdict(config.image).items() if value not in (None, "upright")}
    rule = {key: list(value) if isinstance(value, tuple) else value for key, value in rule.items()}
    if config.resize is not None:
        pairs = zip(_RESIZE, config.resize, strict=True)
        rule["resize"] = {key: value for key, value in pairs if value is not None}
    return rule
