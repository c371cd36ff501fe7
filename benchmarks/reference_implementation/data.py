"""A training sample from full-size files: decode all, resize all, transform all in floating point, then crop."""

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["target_crop", "training_pair"]

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_PUBLISHED_SIZES = ((1280, 720), (1024, 512))
_STD = np.array([58.395, 57.12, 57.375], np.float32)


def training_pair(
    source: Path,
    label: Path,
    target: Path,
    crop: int,
    generator: np.random.Generator,
    *,
    sizes: tuple[tuple[int, int], tuple[int, int]] = _PUBLISHED_SIZES,
    table: NDArray[np.uint8] | None = None,
    distort: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Source image, its label, target image: normalized float32 (3, crop, crop) and int64 (crop, crop).

    ``sizes`` are (width, height) of resized source and target images; ``table`` maps the stored label values.
    """
    image = cv2.resize(_decoded(source), sizes[0], interpolation=cv2.INTER_LINEAR)
    classes = np.asarray(Image.open(label)).astype(np.uint8)
    if table is not None:
        classes = _mapped(classes, table)
    classes = cv2.resize(classes, sizes[0], interpolation=cv2.INTER_NEAREST).astype(np.int64)
    y, x = _varied_crop(classes, crop, generator)
    image, classes = image[y : y + crop, x : x + crop], classes[y : y + crop, x : x + crop]
    if distort:
        image = _distorted(image, generator)
    other = target_crop(target, crop, generator, sizes[1])
    if generator.random() < 0.5:
        image, classes = image[:, ::-1], classes[:, ::-1]
    return _tensor(image), torch.from_numpy(np.ascontiguousarray(classes)), other


def target_crop(target: Path, crop: int, generator: np.random.Generator, size: tuple[int, int]) -> Tensor:
    """A normalized crop, float32 (3, crop, crop), of the image resized to ``size`` (width, height)."""
    image = cv2.resize(_decoded(target), size, interpolation=cv2.INTER_LINEAR)
    y, x = _corner(image.shape[:2], crop, generator)
    image = image[y : y + crop, x : x + crop]
    return _tensor(image[:, ::-1] if generator.random() < 0.5 else image)


def _mapped(label: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Value by value, as label maps are applied there."""
    mapped = label.copy()
    for value in range(256):
        mapped[label == value] = table[value]
    return mapped


def _distorted(image: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Brightness, contrast, saturation and hue, each with probability 0.5; RGB in [0, 255]."""
    if generator.random() < 0.5:
        image = image + np.float32(generator.uniform(-32, 32))
    if generator.random() < 0.5:
        image = image * np.float32(generator.uniform(0.5, 1.5))
    hsv = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    if generator.random() < 0.5:
        hsv[..., 1] = np.clip(hsv[..., 1] * generator.uniform(0.5, 1.5), 0, 1)
    if generator.random() < 0.5:
        hsv[..., 0] = (hsv[..., 0] + 2 * generator.integers(-18, 18)) % 360
    return 255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


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
