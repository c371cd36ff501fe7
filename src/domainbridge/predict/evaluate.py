"""Scoring a model folder on a folder of labelled images."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.label_files import IdLabels
from domainbridge.data.listing import FolderRule, list_folder
from domainbridge.data.samples import FileSamples
from domainbridge.data.spaces import SUBSETS, LabelSpace, label_space, space_table
from domainbridge.errors import RecipeError
from domainbridge.evaluation.confusion import Scores
from domainbridge.evaluation.scoring import ScoringRule, score
from domainbridge.predict.loading import load_predictor

__all__ = ["evaluate_folder", "scores_json"]


def evaluate_folder(
    model: Path,
    images: Path,
    labels: Path,
    split: Path | None,
    labels_in: str | None,
    *,
    subsets: Sequence[str] = (),
    slide: bool = False,
    flip: bool = False,
    device: str = "auto",
) -> Scores:
    """Scores in the coarser of the model's and the labels' spaces, and means over known ``subsets`` of its classes.

    Raises:
        InputError: the model, the files, the spaces or the subsets do not fit.
    """
    predictor = load_predictor(model, slide=slide, flip=flip, device=device)
    stored = predictor.space if labels_in in (None, predictor.space.name) else label_space(str(labels_in))
    scored, label_table, prediction_table = _meeting_space(predictor.space, stored)
    unknown = [name for name in subsets if name not in SUBSETS or scored.name != "cityscapes19"]
    if unknown:
        raise RecipeError(
            f"--subset {', '.join(unknown)}: known are {', '.join(SUBSETS)}, for scores in cityscapes19; these are in "
            f"{scored.name}"
        )
    files = list_folder(images, labels, FolderRule(split)).checked("evaluate")
    decoder = IdLabels.in_space(label_table, stored)
    samples = FileSamples("evaluate", files.images, files.labels, decoder, predictor.resize, resize_labels=False)
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
