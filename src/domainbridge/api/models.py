"""Load a model."""

from collections.abc import Sequence
from pathlib import Path

from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.tools.hub import local_model

__all__ = ["PathLike", "load_model"]

PathLike = Path | str


def load_model(
    folder: PathLike,
    *,
    slide: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: str = "float32",
) -> Predictor:
    """A model folder as an ``nn.Module`` with ``classes``, ``palette``, ``predict`` and ``predict_probabilities``.

    Args:
        folder: path to a folder with model.safetensors and config.json, e.g. ``runs/NAME/model``; or ``USER/NAME`` or
            ``USER/NAME@REVISION`` of a model on the Hugging Face hub, fetched into the cache of huggingface_hub.
        slide: sliding windows of 512x512 instead of the whole image.
        flip: average with the mirrored image.
        scales: factors of the image's size at the network, such as (0.75, 1, 1.25); the result is the most probable
            class of the mean of all passes' softmax probabilities.
        device: auto, cpu, cuda, cuda:1 ...
        precision: float32, or bfloat16 and float16 under autocast.

    Raises:
        ModelError: no model folder, or a damaged one.
        RecipeError: no such device or precision, or scales that cannot be used.
        HubError: the hub cannot be reached, or huggingface_hub is not installed.
    """
    return load_predictor(
        local_model(folder), slide=slide, flip=flip, scales=scales, device=device, precision=precision
    )
