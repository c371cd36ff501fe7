"""A training sample from full-size files: decode all, resize all, transform all in floating point, then crop."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["training_pair"]

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


def training_pair(
    source: Path, label: Path, target: Path, crop: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Source image, its label, target image: normalised float32 (3, crop, crop) and int64 (crop, crop)."""
    image = cv2.resize(_decoded(source), (1280, 720), interpolation=cv2.INTER_LINEAR)
    classes = np.asarray(Image.open(label)).astype(np.uint8)
    classes = cv2.resize(classes, (1280, 720), interpolation=cv2.INTER_NEAREST).astype(np.int64)
    y, x = _varied_crop(classes, crop, generator)
    image, classes = image[y : y + crop, x : x + crop], classes[y : y + crop, x : x + crop]
    other = cv2.resize(_decoded(target), (1024, 512), interpolation=cv2.INTER_LINEAR)
    y, x = _corner(other.shape[:2], crop, generator)
    other = other[y : y + crop, x : x + crop]
    if generator.random() < 0.5:
        image, classes = image[:, ::-1], classes[:, ::-1]
    if generator.random() < 0.5:
        other = other[:, ::-1]
    return _tensor(image), torch.from_numpy(np.ascontiguousarray(classes)), _tensor(other)


def _decoded(path: Path) -> NDArray[np.float32]:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(np.float32)


def _varied_crop(label: NDArray[np.int64], crop: int, generator: np.random.Generator) -> tuple[int, int]:
    for _ in range(10):
        y, x = _corner(label.shape, crop, generator)
        values, counts = np.unique(label[y : y + crop, x : x + crop], return_counts=True)
        counts = counts[values != 255]
        if len(counts) > 1 and counts.max() / counts.sum() < 0.75:
            break
    return y, x


def _corner(shape: tuple[int, ...], crop: int, generator: np.random.Generator) -> tuple[int, int]:
    y, x = (int(generator.integers(max(length - crop, 0) + 1)) for length in shape[:2])
    return y, x


def _tensor(image: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(((image - _MEAN) / _STD).transpose(2, 0, 1)))
