"""A model folder made ready for images of any size."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.data.spaces import LabelSpace
from domainbridge.data.transforms import ResizeRule, resize_image
from domainbridge.evaluation.inference import InferenceRule, probabilities
from domainbridge.models.segmenter import Segmenter
from domainbridge.models.store import load_model
from domainbridge.training.runtime import resolve_runtime
from domainbridge.types import as_unit_float

__all__ = ["Predictor", "load_predictor"]

_WINDOW = (512, 512)


@dataclass(frozen=True)
class Predictor:
    """A network with everything that its images need.

    Attributes:
        model: in evaluation mode.
        space: of its classes.
        resize: applied to images first, or None.
        rule: whole or sliding, flip.
        device: where the model is.
    """

    model: Segmenter
    space: LabelSpace
    resize: ResizeRule | None
    rule: InferenceRule
    device: torch.device

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """Class probabilities at the image's own size: RGB uint8 (h, w, 3) to float32 (classes, h, w)."""
        size = (image.shape[0], image.shape[1])
        resized = image if self.resize is None else resize_image(image, self.resize.size_for(*size))
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))[None].to(self.device)
        return probabilities(self.model, as_unit_float(tensor), size, self.rule)[0]


def load_predictor(folder: Path, *, slide: bool = False, flip: bool = False, device: str = "auto") -> Predictor:
    """Load a model folder.

    Raises:
        ModelError: it is not one.
        RecipeError: no such device.
    """
    runtime = resolve_runtime(device)
    model, card = load_model(folder)
    runtime.place(model, channels_last=True)
    resize = ResizeRule(*card.resize) if card.resize else None
    space = LabelSpace(card.label_space, card.classes, card.colors)
    return Predictor(model, space, resize, InferenceRule(_WINDOW if slide else None, flip), runtime.device)
