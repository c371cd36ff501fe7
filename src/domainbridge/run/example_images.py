"""A few images with a model's predictions, for trackers that show pictures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import evenly_spread
from domainbridge.data.transforms import resize_image
from domainbridge.evaluation.predictor import Predictor

__all__ = ["ExampleImages", "example_images"]

_COUNT = 4
_HEIGHT = 192
"""Rows of pixels of each picture in the panel."""


@dataclass(frozen=True)
class ExampleImages:
    """Images of one target, all RGB, uint8 (height, width, 3).

    Attributes:
        images: as the network gets them.
        predictions: painted in the colors of the classes.
        labels: painted likewise; empty without labels.
    """

    images: tuple[NDArray[np.uint8], ...]
    predictions: tuple[NDArray[np.uint8], ...]
    labels: tuple[NDArray[np.uint8], ...]

    def panel(self) -> NDArray[np.uint8]:
        """One picture: a row per image, image | prediction | label; uint8 (height, width, 3)."""
        columns = [column for column in (self.images, self.predictions, self.labels) if column]
        rows = [np.concatenate([_fitted(picture) for picture in row], 1) for row in zip(*columns, strict=True)]
        width = max(row.shape[1] for row in rows)
        return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows], 0)


def example_images(predictor: Predictor, recipe: Recipe, data: DataSets) -> ExampleImages | None:
    """Evenly spread images of the first validation set, or of the first target; None without images."""
    validation = next(iter(data.validation.values()), None)
    dataset = validation if validation is not None else data.targets[0]
    if not len(dataset):
        return None
    palette, label_palette = training_space(recipe).palette, scoring_rule(recipe).space.palette
    samples = [dataset[index] for index in evenly_spread(len(dataset), _COUNT)]
    predictions = [palette[predictor.predict(np.ascontiguousarray(sample.image))] for sample in samples]
    labels = [label_palette[sample.label] for sample in samples if sample.label is not None]
    return ExampleImages(tuple(sample.image for sample in samples), tuple(predictions), tuple(labels))


def _fitted(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return resize_image(picture, (_HEIGHT, max(picture.shape[1] * _HEIGHT // picture.shape[0], 1)))
