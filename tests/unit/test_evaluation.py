"""Confusion matrix, scores, inference on whole images and in windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbridge.data.label_spaces import BUILT_IN, SUBSETS, label_space, space_table
from domainbridge.evaluation.confusion import confusion_matrix, scores
from domainbridge.evaluation.evaluate import ScoringRule, score
from domainbridge.evaluation.inference import InferenceRule, probabilities
from domainbridge.models.segmenter import Segmentation
from domainbridge.runtime.device import Runtime
from domainbridge.types import Sample

values = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=40)


@given(st.data())
def test_iou_is_intersection_over_union(data: st.DataObject) -> None:
    label = torch.tensor(data.draw(values))
    guess = torch.tensor(data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=len(label), max_size=len(label))))
    found = scores(confusion_matrix(label, guess, 3), ("a", "b", "c"), 1)
    counted = label != 255
    for k, name in enumerate("abc"):
        union = (((label == k) | (guess == k)) & counted).sum()
        expected = None if union == 0 else 100 * ((label == k) & (guess == k)).sum() / union
        assert found.iou[name] == (None if expected is None else pytest.approx(float(expected)))


def test_absent_and_excluded_classes_are_not_in_the_mean() -> None:
    matrix = torch.tensor([[3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = scores(matrix, ("a", "b", "c"), 2, exclude_classes=("b",))
    assert found.iou == {"a": 75.0, "b": 0.0, "c": None}
    assert found.miou == 75.0
    assert scores(torch.zeros(2, 3, dtype=torch.int64), ("a", "b"), 0).miou is None


def test_means_over_subsets() -> None:
    matrix = torch.tensor([[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    found = scores(matrix, ("a", "b", "c"), 1, subsets={"first": ("a",), "with absent": ("b", "c"), "none": ("c",)})
    assert found.subsets == {"first": 75.0, "with absent": pytest.approx(200 / 3), "none": None}
    assert [len(members) for members in SUBSETS.values()] == [16, 13]


class Pixelwise(torch.nn.Module):
    """Logits that depend on each pixel alone, at full resolution."""

    def forward(self, image: torch.Tensor) -> Segmentation:
        return Segmentation(torch.cat([image[:, :1], 1 - image[:, :1], 0.5 * image[:, 1:2]], 1) * 5, image)


@given(st.integers(5, 40), st.integers(5, 40), st.integers(3, 20), st.booleans())
def test_windows_and_flips_agree_with_the_whole_image(height: int, width: int, window: int, flip: bool) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * width))
    whole = probabilities(Pixelwise(), image, (height, width), InferenceRule())
    slid = probabilities(Pixelwise(), image, (height, width), InferenceRule((window, window), flip))
    assert torch.allclose(whole, slid, atol=1e-5)
    assert probabilities(Pixelwise(), image, (7, 9), InferenceRule((window, window))).shape == (1, 3, 7, 9)


class Given:
    """Samples whose label is what the network above predicts, but for one image."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (12, 10, 3), np.uint8)
        label = (image[..., 0] < 128).astype(np.uint8) if index else np.full((12, 10), 255, np.uint8)
        return Sample(image, label, str(index))


def test_scoring_in_the_own_and_in_a_coarser_space() -> None:
    space = label_space("three", ["bright", "dark", "green"])
    network = Pixelwise().train()
    rule = ScoringRule(space, space_table(space, space))
    found = score(network, Given(), rule, Runtime(torch.device("cpu"), 0))
    assert found.images == 3
    assert found.iou["dark"] > 80
    assert network.training, "the mode is put back"
    merged = np.full(256, 255, np.uint8)
    merged[:3] = 0
    coarse = score(
        network, Given(), ScoringRule(label_space("one", ["all", "none"]), merged), Runtime(torch.device("cpu"), 0)
    )
    assert coarse.iou["all"] < 100, "labels of the other class are missed"


def test_camvid_names_stand_in_the_published_order() -> None:
    assert BUILT_IN["camvid11"].classes[0] == "sky"
    assert len(BUILT_IN["idd7"]) == 7
