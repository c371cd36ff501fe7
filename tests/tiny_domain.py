"""A generated domain pair, and a recipe over it that runs in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (40, 48)
CLASSES = ["ground", "box", "sky"]
PAINT = np.array([[90, 80, 70], [200, 60, 50], [80, 120, 220]], np.float64)

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "label_space": {"name": "scene", "classes": CLASSES},
    "sources": [{"name": "clear", "root": "source", "images": "images", "labels": "labels"}],
    "targets": [
        {
            "name": "fog",
            "root": "target",
            "images": "images",
            "validation": {"root": "target-val", "images": "images", "labels": "labels"},
        }
    ],
    "model": {"backbone": "test_efficientnet", "output_stride": 16, "head": {"channels": 16, "dilations": [1, 2]}},
    "crop": {"width": 32, "height": 32},
    "source_only": True,
    "training": {"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1, "checkpoint_every": 2},
    "prototypes": {"passes": 1},
    "evaluation": {"label_free": {"images": 4}},
    "runtime": {"num_workers": 0, "device": "cpu", "threads": 1},
}


def draw_scene(generator: np.random.Generator) -> np.ndarray:
    """Label: sky above a horizon, ground below, one box on the ground."""
    label = np.zeros(SIZE, np.uint8)
    horizon = int(generator.integers(10, 22))
    label[:horizon] = 2
    top, left = horizon - int(generator.integers(2, 8)), int(generator.integers(0, 32))
    label[max(top, 0) : horizon + 8, left : left + int(generator.integers(8, 16))] = 1
    return label


def paint_scene(label: np.ndarray, generator: np.random.Generator, foggy: bool) -> np.ndarray:
    image = PAINT[label] + generator.normal(0, 12, (*label.shape, 3))
    if foggy:
        image = 0.6 * image + 0.4 * np.array([200, 200, 190])
    return image.clip(0, 255).astype(np.uint8)


def write_domain(root: Path, count: int, seed: int, *, foggy: bool, labeled: bool) -> None:
    generator = np.random.default_rng(seed)
    for number in range(count):
        label = draw_scene(generator)
        for folder, array in (("images", paint_scene(label, generator, foggy)), ("labels", label)):
            if folder == "images" or labeled:
                path = root / folder / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
