"""From a recipe's keys about labels to label spaces, decoders and the scoring rule."""

from pathlib import Path

import torch

from domainbridge.build.annotations import annotation_decoder
from domainbridge.config.domains import LabelsConfig, LabelSpaceConfig
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.data.color_labels import ColorLabels
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import BUILT_IN, LabelSpace, label_space, space_table, table_by_names
from domainbridge.data.labels import IdLabels, LabelDecoder
from domainbridge.data.layout_listing import known_layout
from domainbridge.errors import RecipeError
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.ops.losses import PixelLoss

__all__ = ["crop_notes", "pads", "pixel_loss", "scoring_rule", "source_decoder", "training_space", "validation_decoder"]

AnnotationPlace = tuple[str, Path]
"""Format of an annotation, and its file or folder."""


def training_space(recipe: Recipe) -> LabelSpace:
    """The space that the network predicts.

    Raises:
        RecipeError: unknown.
    """
    return _space(recipe.label_space)


def scoring_rule(recipe: Recipe) -> ScoringRule:
    """How the recipe scores.

    Raises:
        RecipeError: a space, map or class is unknown.
    """
    rule = recipe.evaluation
    trained = training_space(recipe)
    space = trained if rule.label_space is None else _space(rule.label_space)
    table = table_by_names(rule.map, trained, space) if rule.map is not None else space_table(trained, space)
    for name in (*rule.exclude_classes, *(member for members in rule.subsets.values() for member in members)):
        space.index(name)
    window = (rule.window or (recipe.crop.height, recipe.crop.width)) if rule.mode == "slide" else None
    inference = InferenceRule(window, rule.flip, rule.precision, rule.scales, pads(recipe))
    return ScoringRule(space, table, rule.exclude_classes, inference, rule.subsets)


def pads(recipe: Recipe) -> bool:
    """Whether images are continued until the largest stride divides their sides, so that cells lie as in training.

    Training with crops that the stride does not divide stretches the logits; so do its scores.
    """
    return recipe.evaluation.pad and recipe.fidelity != "published" and not crop_notes(recipe)


def crop_notes(recipe: Recipe) -> list[str]:
    """What to know of a crop that the output stride does not divide, as a sentence; nothing for others."""
    stride, crop = recipe.model.output_stride, recipe.crop
    if crop.height % stride == 0 and crop.width % stride == 0:
        return []
    return [
        f"crop: {crop.width}x{crop.height} pixels are no multiples of model.output_stride ({stride}), so the network's "
        "cells are stretched over images, in training and in scores; multiples avoid that"
    ]


def pixel_loss(recipe: Recipe, training: TrainingConfig, device: torch.device) -> PixelLoss | None:
    """The cross entropy of a stage; None: the plain one.

    Raises:
        RecipeError: the keys name a class that the network does not predict.
    """
    if not training.class_weights and not training.label_smoothing:
        return None
    classes = training_space(recipe).classes
    unknown = [name for name in training.class_weights if name not in classes]
    if unknown:
        raise RecipeError(
            f"training.class_weights: no class is called {', '.join(unknown)}; classes are {', '.join(classes)}"
        )
    weights = [training.class_weights.get(name, 1.0) for name in classes]
    return PixelLoss(torch.tensor(weights, device=device) if training.class_weights else None, training.label_smoothing)


def source_decoder(
    recipe: Recipe, rule: LabelsConfig, dataset: str, root: Path, where: str, place: AnnotationPlace | None = None
) -> LabelDecoder:
    """How a domain's label files become train ids of the recipe's space.

    Args:
        recipe: with the space.
        rule: the domain's keys about labels.
        dataset: a layout's name, or 'folder'.
        root: of the data set; a layout may keep a list of its classes there.
        where: for messages.
        place: format and place of an annotation, where the labels are one and no masks.

    Raises:
        RecipeError: no way leads from the files to the space.
        DataError: the layout's list of classes is missing or unreadable.
    """
    decoder, native = _native_decoder(recipe, rule, dataset, root, where, place)
    return decoder.compose(space_table(native, training_space(recipe)))


def validation_decoder(
    recipe: Recipe, rule: LabelsConfig, dataset: str, root: Path, where: str, place: AnnotationPlace | None = None
) -> LabelDecoder:
    """How a validation set's label files become ids of the scoring space: as a source's would, then as predictions do.

    Files that are in the scoring space already are read as they are.

    Raises:
        RecipeError: no way leads from the files to the space.
        DataError: the layout's list of classes is missing or unreadable.
    """
    scored = scoring_rule(recipe)
    decoder, native = _native_decoder(recipe, rule, dataset, root, where, place)
    if native == scored.space:
        return decoder
    return decoder.compose(scored.table[space_table(native, training_space(recipe))])


def _native_decoder(
    recipe: Recipe, rule: LabelsConfig, dataset: str, root: Path, where: str, place: AnnotationPlace | None
) -> tuple[LabelDecoder, LabelSpace]:
    """A decoder to the files' native label space, and that space."""
    decoder, native = _stored_decoder(recipe, rule, dataset, root, where, place)
    if not rule.label_nearest:
        return decoder, native
    if not isinstance(decoder, IdLabels | ColorLabels):
        raise RecipeError(f"{where}: label_nearest is for labels of values or colors")
    return decoder.with_nearest(), native


def _stored_decoder(
    recipe: Recipe, rule: LabelsConfig, dataset: str, root: Path, where: str, place: AnnotationPlace | None
) -> tuple[LabelDecoder, LabelSpace]:
    """As :func:`_native_decoder`, for values as stored."""
    space = training_space(recipe)
    if rule.label_map is not None and rule.label_space is not None:
        raise RecipeError(f"{where}: give label_map or label_space, not both")
    if place is not None:
        native = space if rule.label_map is not None else _native_space(recipe, rule)
        return annotation_decoder(rule, place, native, where), native
    useless = [key for key in ("annotation_format", "unannotated") if getattr(rule, key) is not None]
    if useless:
        raise RecipeError(f"{where}: {' and '.join(useless)}: no annotation is at {root / (rule.labels or '')}")
    if rule.label_map is not None:
        return label_map_decoder(rule.label_map, space, where), space
    if dataset != "folder" and rule.label_space is None:
        layout = known_layout(dataset, where)
        return layout.decoder(root), BUILT_IN[layout.label_space]
    native = _native_space(recipe, rule)
    return IdLabels.in_space(space_table(native, native), native), native


def _native_space(recipe: Recipe, rule: LabelsConfig) -> LabelSpace:
    """The space that the domain's ``label_space`` names; default: the recipe's."""
    space = training_space(recipe)
    native = {known.name: known for known in (scoring_rule(recipe).space, space)}.get(rule.label_space or space.name)
    return native or label_space(str(rule.label_space))


def _space(definition: str | LabelSpaceConfig) -> LabelSpace:
    if isinstance(definition, str):
        return label_space(definition)
    return label_space(definition.name, definition.classes, definition.colors)
