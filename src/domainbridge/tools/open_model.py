"""A MODEL argument, whatever it names: a model folder, a model of the hub, or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbridge.evaluation.exported import ExportedPredictor, load_exported
from domainbridge.evaluation.exported_file import is_exported

if TYPE_CHECKING:
    from domainbridge.evaluation.predictor import Predictor

__all__ = ["open_model"]


def open_model(
    model: Path | str,
    *,
    slide: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: str = "float32",
) -> Predictor | ExportedPredictor:
    """Load a model folder, a model of the hub, or an exported file, which its ending tells.

    Only what is no .onnx file imports torch.

    Raises:
        InputError: as for :func:`domainbridge.tools.hub.local_model`, :func:`load_exported` and
            :func:`domainbridge.evaluation.predictor.load_predictor`.
    """
    if is_exported(model) and not Path(model).is_dir():
        return load_exported(model, slide=slide, flip=flip, scales=scales, device=device, precision=precision)
    from domainbridge.evaluation.predictor import load_predictor
    from domainbridge.tools.hub import local_model

    return load_predictor(local_model(model), slide=slide, flip=flip, scales=scales, device=device, precision=precision)
