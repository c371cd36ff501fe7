"""Images whose sides the network's largest stride does not divide: where the cells lie, and what stays as published."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from domainbridge.build.label_space import crop_notes, scoring_rule
from domainbridge.build.networks import model_config
from domainbridge.build.recipe import parse_recipe
from domainbridge.evaluation import windows
from domainbridge.evaluation.edge_padding import continued, covered
from domainbridge.evaluation.inference import probabilities
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.evaluation.predictor import load_predictor
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import save_model
from domainbridge.models.segmenter import ModelSpec, Segmentation
from one_image import class_map
from tiny_domain import RECIPE
from tiny_network import network

CPU = torch.device("cpu")


class Cells(torch.nn.Module):
    """The mean brightness of each cell: class 1 where a cell is bright. A part of a cell counts as a cell."""

    def __init__(self, grid: int, cell: int) -> None:
        super().__init__()
        self.grid, self.cell = grid, cell

    def forward(self, image: Tensor) -> Segmentation:
        bright = F.avg_pool2d(image[:, :1], self.cell, ceil_mode=True)
        return Segmentation(torch.cat([0.5 - bright, bright - 0.5], 1), bright)


def bands(height: int, width: int, period: int) -> NDArray[np.uint8]:
    """Rows that are dark and bright in turns, ``period`` each."""
    bright = np.arange(height) // period % 2 == 1
    return np.broadcast_to(255 * bright[:, None, None], (height, width, 3)).astype(np.uint8)


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 8, 32]))
def test_a_continued_image_repeats_its_edge(height: int, width: int, grid: int) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    larger = continued(image, grid)
    assert larger.shape[:2] == covered((height, width), grid)
    assert larger.shape[0] % grid == larger.shape[1] % grid == 0
    assert larger.shape[0] - height < grid
    assert np.array_equal(larger[:height, :width], image)
    assert (larger[height:, :width] == image[-1]).all()
    assert (larger[:, width:] == larger[:, width - 1 : width]).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("of", ["class_map", "probabilities"])
def test_cells_lie_on_the_image_as_in_training(of: str, flip: bool) -> None:
    """Cells of 16 pixels on 88 rows: the sixth has 8. Stretched, the bands of 16 rows move by up to 8."""
    image = bands(88, 64, 16)
    right = image[:, :, 0] == 255

    def wrong(pad: bool) -> float:
        rule, size = InferenceRule(flip=flip, pad=pad), (88, 64)
        if of == "class_map":
            classes = class_map(Cells(32, 16), image, size, rule, CPU).classes
        else:
            classes = probabilities(Cells(32, 16), image, size, rule, CPU)[0].argmax(0)
        return float(((classes.numpy() == 1) != right).mean())

    assert wrong(pad=False) > 0.05
    assert wrong(pad=True) < 0.02


def test_a_divisible_image_is_put_through_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    model = network().eval()
    results = [probabilities(model, image, (64, 96), InferenceRule(pad=pad), CPU) for pad in (True, False)]
    assert torch.equal(*results)


@pytest.mark.parametrize("size", [(70, 100), (65, 127)])
def test_windows_of_any_image_give_the_whole_one(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    whole = class_map(Cells(32, 4), image, size, InferenceRule(), CPU)
    monkeypatch.setattr(windows, "ONE_PIECE", 32 * 32)
    monkeypatch.setattr(windows, "_SIDE", 64)
    monkeypatch.setattr(windows, "CONTEXT", 16)
    monkeypatch.setattr(windows, "_REACH", 4)
    assert torch.equal(class_map(Cells(32, 4), image, size, InferenceRule(), CPU).classes, whole.classes)


def test_the_grid_of_a_network_is_its_largest_stride() -> None:
    assert network().grid == 16


@pytest.mark.parametrize(
    ("keys", "pads"),
    [
        ({}, True),
        ({"evaluation": {"pad": False}}, False),
        ({"fidelity": "published"}, False),
        ({"crop": {"width": 32, "height": 40}}, False),
        ({"crop": {"width": 48, "height": 32}}, True),
    ],
)
def test_images_are_put_through_as_training_saw_them(keys: dict[str, Any], pads: bool, tmp_path: Path) -> None:
    recipe = parse_recipe({**RECIPE, **keys})
    assert scoring_rule(recipe).inference.pad is pads
    assert bool(crop_notes(recipe)) is (recipe.crop.height == 40)
    model = network()
    described = replace(
        model_config(recipe), spec=ModelSpec("test_efficientnet", 16, 3, HeadSpec("deeplabv2", 8, (1, 2)))
    )
    save_model(tmp_path, model, described)
    assert load_predictor(tmp_path, device="cpu").grid == (16 if pads else 1), "also where the model is used later"
    assert ("pad" in json.loads((tmp_path / "config.json").read_text())) is not pads
