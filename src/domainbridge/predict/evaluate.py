"""Scoring a model folder on labelled images: a folder of them, or a known data set."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.label_files import IdLabels, LabelDecoder
from domainbridge.data.layout_listing import known_layout, list_layout, split_of
from domainbridge.data.listing import FolderRule, Listing, list_folder
from domainbridge.data.samples import FileSamples
from domainbridge.data.spaces import BUILT_IN, SUBSETS, LabelSpace, space_table
from domainbridge.errors import RecipeError
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.scoring import ScoringRule, score
from domainbridge.predict.loading import Predictor

__all__ = ["LabelledFiles", "dataset_files", "evaluate_files", "folder_files", "scores_json"]


@dataclass(frozen=True)
class LabelledFiles:
    """Images with labels to score on.

    Attributes:
        listing: of the files.
        decoder: from label files to ids of ``space``.
        space: that the labels are in.
        label_scale: labels are scored at this share of their size.
    """

    listing: Listing
    decoder: LabelDecoder
    space: LabelSpace
    label_scale: float = 1.0


def folder_files(images: Path, labels: Path, split: Path | None, space: LabelSpace) -> LabelledFiles:
    """A folder of images and its mirror image of labels that hold train ids of ``space``.

    Raises:
        DataError: files are missing.
    """
    listing = list_folder(images, labels, FolderRule(split)).checked("evaluate")
    return LabelledFiles(listing, IdLabels.in_space(space_table(space, space), space), space)


def dataset_files(dataset: str, root: Path, split: str | None, label_scale: float = 1.0) -> LabelledFiles:
    """A known data set as downloaded; ``split`` None is its validation set.

    Raises:
        InputError: the data set or split is unknown, or files are missing.
    """
    chosen = split_of(dataset, split, "evaluate", default="val")
    listing = list_layout(dataset, root, chosen, (), labelled=True).checked(f"{dataset} at {root}")
    layout = known_layout(dataset, "evaluate")
    return LabelledFiles(listing, layout.decoder(root), BUILT_IN[layout.label_space], label_scale)


def evaluate_files(predictor: Predictor, files: LabelledFiles, subsets: Sequence[str] = ()) -> Scores:
    """Scores in the coarser of the model's and the labels' spaces, and means over known ``subsets`` of its classes.

    Raises:
        InputError: the files, the spaces or the subsets do not fit.
    """
    scored, label_table, prediction_table = _meeting_space(predictor.space, files.space)
    unknown = [name for name in subsets if name not in SUBSETS or scored.name != "cityscapes19"]
    if unknown:
        raise RecipeError(
            f"--subset {', '.join(unknown)}: known are {', '.join(SUBSETS)}, for scores in cityscapes19; these are in "
            f"{scored.name}"
        )
    samples = FileSamples(
        "evaluate",
        files.listing.images,
        files.listing.labels,
        files.decoder.then(label_table),
        predictor.resize,
        resize_labels=False,
        label_scale=files.label_scale,
    )
    rule = ScoringRule(scored, prediction_table, (), predictor.rule, {name: SUBSETS[name] for name in subsets})
    return score(predictor.model, samples, rule, predictor.device)


def scores_json(scores: Scores) -> str:
    """The scores as a JSON text."""
    return json.dumps(asdict(scores), indent=1) + "\n"


def _meeting_space(model: LabelSpace, stored: LabelSpace) -> tuple[LabelSpace, NDArray[np.uint8], NDArray[np.uint8]]:
    """(space to score in, table for labels, table for predictions)."""
    for scored in (model, stored):
        try:
            return scored, space_table(stored, scored), space_table(model, scored)
        except RecipeError:
            continue
    raise RecipeError(
        f"--label-space {stored.name}: no map is known between it and the model's {model.name}, in either direction"
    )
