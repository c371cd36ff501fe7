"""A multi-scale test: the mean of the probabilities at several sizes of the image."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from domainbridge.build.recipe import parse_recipe
from domainbridge.errors import RecipeError
from domainbridge.evaluation import windows
from domainbridge.evaluation.inference import class_map_parts, images_at_once, probabilities
from domainbridge.evaluation.inference_rule import InferenceRule, given_scales
from domainbridge.models.segmenter import Segmentation
from fake_cuda import CUDA
from one_image import class_map

CPU = torch.device("cpu")
Image = NDArray[np.uint8]


class Coarse(torch.nn.Module):
    """Logits at a quarter of the image's size that see a few pixels around."""

    grid = 1

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = torch.randn(5, 3, 8, 8, generator=generator)

    def forward(self, image: Tensor) -> Segmentation:
        return Segmentation(F.conv2d(image - 0.5, self.kernel, stride=4, padding=4), image)


class Pixelwise(torch.nn.Module):
    """Logits of each pixel alone, so that windows change nothing; and how many pixels passed."""

    grid = 1

    def __init__(self) -> None:
        super().__init__()
        self.pixels = 0

    def forward(self, image: Tensor) -> Segmentation:
        self.pixels += image[:, 0].numel()
        return Segmentation(torch.cat([image[:, :1], 1 - image[:, :1], image[:, 1:2]], 1) * 5, image)


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def by_formula(model: torch.nn.Module, image: Image, size: tuple[int, int], rule: InferenceRule) -> Tensor:
    """Mean of the probabilities, (classes, *size): resize, network, logits to the resized image and to the result."""
    total, passes = torch.zeros(()), 0
    for factor in rule.scales:
        height, width = (max(int(side * factor + 0.5), 1) for side in image.shape[:2])
        tensor = torch.from_numpy(cv2.resize(image, (width, height))).permute(2, 0, 1)[None].float() / 255
        for mirrored in (False, True)[: 1 + rule.flip]:
            logits = model(tensor.flip(3)).logits.flip(3) if mirrored else model(tensor).logits
            for goal in ((height, width), size):
                logits = F.interpolate(logits, goal, mode="bilinear", align_corners=False)
            total, passes = total + logits.softmax(1)[0], passes + 1
    return total / passes


def compare(found_classes: Tensor, found_confidence: Tensor, expected: Tensor, most: float = 1e-4) -> None:
    chosen = expected.gather(0, found_classes.long()[None])[0]
    assert (expected.amax(0) - chosen).max() <= most, "the most probable class, or one as probable"
    assert (found_confidence.float() - 255 * expected.amax(0)).abs().max() < 0.6 + 255 * most


@settings(max_examples=20)
@given(
    st.tuples(st.integers(8, 60), st.integers(8, 60)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([(1.0,), (0.5,), (0.75, 1.0, 1.25), (2.0, 0.4)]),
    st.booleans(),
)
def test_the_mean_of_probabilities_over_scales(
    shape: tuple[int, int], size: tuple[int, int], scales: tuple[float, ...], flip: bool
) -> None:
    rule = InferenceRule(flip=flip, scales=scales)
    expected = by_formula(Coarse(), noise(*shape), size, rule)
    actual = class_map(Coarse(), noise(*shape), size, rule, CPU, confidence=True)
    assert actual.confidence is not None
    compare(actual.classes, actual.confidence, expected)
    assert torch.allclose(probabilities(Coarse(), noise(*shape), size, rule, CPU)[0], expected, atol=1e-5)


@settings(max_examples=15)
@given(
    st.tuples(st.integers(20, 110), st.integers(20, 110)),
    st.floats(0.3, 2),
    st.sampled_from([(0.25, 1.0), (1.5, 0.75), (0.6, 1.0, 1.7)]),
    st.sampled_from([None, (24, 40)]),
    st.booleans(),
)
@example((110, 97), 1.0, (0.25, 1.0), None, True)
@example((70, 110), 0.31, (0.6, 1.0, 1.7), None, False)
def test_large_images_are_read_in_parts_at_every_scale(
    shape: tuple[int, int], result: float, scales: tuple[float, ...], window: tuple[int, int] | None, flip: bool
) -> None:
    """At the smallest scale some of these images are in one piece, while the others are in windows."""
    image = noise(*shape)
    size = max(round(shape[0] * result), 1), max(round(shape[1] * result), 1)
    expected = by_formula(Pixelwise(), image, size, InferenceRule(flip=flip, scales=scales))
    classes, confidence = torch.full(size, 9, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ONE_PIECE": 32 * 32, "_SIDE": 64, "CONTEXT": 16}.items():
            patch.setattr(windows, name, value)
        for part, maps in class_map_parts(
            Pixelwise(), image, size, InferenceRule(window, flip, scales=scales), CPU, confidence=True
        ):
            place = slice(part.top, part.bottom), slice(part.left, part.right)
            assert (classes[place] == 9).all(), "parts cover the result once"
            classes[place], confidence[place] = maps.classes, maps.confidence
    compare(classes, confidence, expected, most=1e-3)


class File:
    """An image that is never in memory as a whole."""

    def __init__(self, image: Image) -> None:
        self.image, self.shape = image, image.shape
        self.largest = 0

    def __getitem__(self, window: tuple[slice, slice]) -> Image:
        crop = self.image[window]
        self.largest = max(self.largest, crop[..., 0].size)
        return crop

    def resized(self, size: tuple[int, int]) -> "File":
        return File(cv2.resize(self.image, size[::-1]))


def test_every_window_of_a_file_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ONE_PIECE": 48 * 48, "_SIDE": 64, "CONTEXT": 16}.items():
        monkeypatch.setattr(windows, name, value)
    rule, network, file = InferenceRule(scales=(0.5, 1.0, 0.75)), Pixelwise(), File(noise(192, 160))
    parts = [part for part, _ in class_map_parts(network, file, (192, 160), rule, CPU)]
    sizes = [(96, 80), (192, 160), (144, 120)]
    views = [windows.large_image_windows(*size).views for size in sizes]
    assert len(parts) == len(views[1])
    assert network.pixels == sum(view.size[0] * view.size[1] for some in views for view in some)
    assert 0 < file.largest <= 64 * 64


def test_as_many_images_at_once_as_the_largest_scale_allows() -> None:
    assert images_at_once(512, 1024, InferenceRule(scales=(0.5, 2.0)), CUDA) == 2
    assert images_at_once(512, 1024, InferenceRule(scales=(0.5,)), CUDA) == 32
    assert images_at_once(512, 1024, InferenceRule(scales=(1.0, 4.0)), CUDA) == 1


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ([], "no factor"),
        ([0, 1], "expected factors from 0.1 to 10, found 0"),
        ([-1.5, 1, 11], "found -1.5, 11"),
        ([1, 0.5, 1.0], "1 more than once; give each factor once"),
        ([float("nan")], "found nan"),
    ],
)
def test_scales_that_cannot_be_used(scales: list[float], message: str) -> None:
    with pytest.raises(RecipeError, match=rf"--scales a: .*{message}"):
        given_scales(scales, "--scales a")
    if scales == scales:
        with pytest.raises(RecipeError, match=rf"evaluation.scales.*{message}"):
            parse_recipe({"evaluation": {"scales": scales}})
