"""The recorded arrays, and the formula that made their inputs (golden/README.md)."""

import json
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbridge.models.backbones.resnet_v1c import resnet_v1c
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.heads.deeplabv2 import DeepLabV2Head
from domainbridge.models.mmseg_names import from_published
from domainbridge.models.pretrained import load_checked
from domainbridge.models.segmenter import Segmenter

FOLDER = Path(os.environ.get("DOMAINBRIDGE_GOLDEN", Path(__file__).parent / "golden"))
"""The arrays of the repository, or another folder with the same files and perhaps more cases."""


@cache
def index() -> dict[str, Any]:
    return json.loads((FOLDER / "index.json").read_text())


def names(prefix: str, suffix: str = ".npz") -> list[str]:
    """Files that the index lists, so that a case added there is a case tested here."""
    return [name for name in index() if name.startswith(prefix) and name.endswith(suffix)]


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name) as content:
        return dict(content)


def table(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)


def unit(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return (2 * uniform(name, shape) - 1) * np.sqrt(3)


def image(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(unit(name, shape).astype(np.float32))


def blocky_label(name: str, shape: tuple[int, int, int], block: int, ignored: float) -> Tensor:
    """Blocks of one of 19 classes; a share of them is 255."""
    cells = (shape[0], shape[1] // block, shape[2] // block)
    label = (uniform(f"{name}/cls", cells) * 19).astype(np.int64)
    if ignored:
        label[uniform(f"{name}/ign", cells) < ignored] = 255
    return torch.from_numpy(label.repeat(block, 1).repeat(block, 2))


def weight(key: str, shape: tuple[int, ...], prefix: str) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    values = unit(prefix + key, shape)
    if len(shape) == 4:
        values = values * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("running_var"):
        values = np.abs(values) + 0.5
    elif key.endswith("running_mean") or key.endswith("bias"):
        values = 0.1 * values
    else:
        values = (1 + 0.1 * values) * (0.2 if key.endswith("bn3.weight") else 1)
    return torch.from_numpy(np.asarray(values, np.float32))


@cache
def tiny_shapes() -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in arrays("a_tinyA_weights.npz").items()}


def published_weights(prefix: str, classifier_gain: float = 1.0) -> dict[str, Tensor]:
    """Weights of the tiny network by the formula, under the authors' names."""
    weights = {key: weight(key, shape, prefix) for key, shape in tiny_shapes().items()}
    weights["decode_head.conv_seg.weight"] *= classifier_gain
    return weights


def tiny_network(weights: dict[str, Tensor]) -> Segmenter:
    """The golden tiny network: ResNet-18 v1c of base width 8, 32 head channels, no dropout, input as it is."""
    backbone = resnet_v1c(18, 8, stem_width=8, channels=(8, 16, 32, 64))
    network = Segmenter(backbone, DeepLabV2Head(HeadSpec(channels=32, dropout=0.0), 8, 64, 19), (0, 0, 0), (1, 1, 1))
    load_checked(network, from_published(weights), "golden weights")
    return network


def our_name(key: str) -> str:
    (name,) = from_published({key: torch.empty(0)})
    return name
