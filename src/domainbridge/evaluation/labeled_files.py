"""Labeled images that no recipe names: the user's folders, or a known data set, made ready for a model's scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.dataset import FileDataset
from domainbridge.data.folder import FolderRule, Listing, list_folder
from domainbridge.data.label_map import label_map_decoder
from domainbridge.data.label_spaces import BUILT_IN, SUBSETS, LabelSpace, label_space, space_table
from domainbridge.data.labels import IdLabels, LabelDecoder
from domainbridge.data.layout_listing import known_layout, list_layout, split_of
from domainbridge.errors import RecipeError
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.predictor import Predictor

__all__ = ["LabeledFiles", "dataset_files", "folder_files", "scoring_of", "space_of_labels"]


@dataclass(frozen=True)
class LabeledFiles:
    """Images with labels to score on.

    Attributes:
        listing: of the files.
        decoder: from label files to ids of ``space``.
        space: label space of the labels.
        label_scale: size of the scored labels / size of the files.
    """

    listing: Listing
    decoder: LabelDecoder
    space: LabelSpace
    label_scale: float = 1.0


def folder_files(
    images: Path,
    labels: Path,
    split: Path | None,
    space: LabelSpace,
    label_map: Mapping[int | str, int | str] | None = None,
) -> LabeledFiles:
    """A folder of images and a folder of labels with the same relative names.

    Args:
        images: folder.
        labels: folder; without ``label_map`` its files hold train ids of ``space``.
        split: text file of stems; None: every image.
        space: label space of the labels.
        label_map: the files' values or '#rrggbb' to classes of ``space``, train ids or 'ignore', as in a recipe.

    Raises:
        RecipeError: keys or values of the label map have no meaning.
        DataError: files are missing.
    """
    decoder: LabelDecoder = IdLabels.in_space(space_table(space, space), space)
    if label_map is not None:
        decoder = label_map_decoder(label_map, space, "evaluate")
    listing = list_folder(images, labels, FolderRule(split)).checked("evaluate")
    return LabeledFiles(listing, decoder, space)


def dataset_files(dataset: str, root: Path, split: str | None, label_scale: float = 1.0) -> LabeledFiles:
    """A known data set as downloaded; ``split`` None is its validation set.

    Raises:
        InputError: the data set or split is unknown, or files are missing.
    """
    chosen = split_of(dataset, split, "evaluate", default="val")
    listing = list_layout(dataset, root, chosen, (), labeled=True).checked(f"{dataset} at {root}")
    layout = known_layout(dataset, "evaluate")
    return LabeledFiles(listing, layout.decoder(root), BUILT_IN[layout.label_space], label_scale)


def space_of_labels(predictor: Predictor, name: str | None) -> LabelSpace:
    """The label space of that name: the model's own, or a built-in one.

    Raises:
        RecipeError: unknown.
    """
    return predictor.space if name in (None, predictor.space.name) else label_space(str(name))


def scoring_of(
    predictor: Predictor, files: LabeledFiles, subsets: Sequence[str] = ()
) -> tuple[FileDataset, ScoringRule]:
    """The files as a data set for the model, and the rule: scores in the coarser of the model's and the labels' spaces.

    Raises:
        RecipeError: no map is known between the two spaces, or a subset is unknown.
    """
    scored, label_table, prediction_table = _common_space(predictor.space, files.space)
    unknown = [name for name in subsets if name not in SUBSETS or scored.name != "cityscapes19"]
    if unknown:
        raise RecipeError(
            f"--subset {', '.join(unknown)}: known are {', '.join(SUBSETS)}, for scores in cityscapes19; these are in "
            f"{scored.name}"
        )
    dataset = FileDataset(
        "evaluate",
        files.listing.images,
        files.listing.labels,
        files.decoder.compose(label_table),
        predictor.resize,
        resize_labels=False,
        label_scale=files.label_scale,
        image_rule=predictor.image_rule,
    )
    return dataset, ScoringRule(scored, prediction_table, (), predictor.rule, {name: SUBSETS[name] for name in subsets})


def _common_space(model: LabelSpace, labels: LabelSpace) -> tuple[LabelSpace, NDArray[np.uint8], NDArray[np.uint8]]:
    """(space to score in, table for labels, table for predictions)."""
    for scored in (model, labels):
        try:
            return scored, space_table(labels, scored), space_table(model, scored)
        except RecipeError:
            continue
    raise RecipeError(
        f"--label-space {labels.name}: no map is known between it and the model's {model.name}, in either direction"
    )
