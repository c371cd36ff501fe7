"""Masks, pasting, photometric augmentation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainbridge.ops.mixing import class_masks, cut_masks, draw_class_scores, draw_rectangles, paste
from domainbridge.ops.photometric import BlurDraws, JitterDraws, blur, draw_blur, draw_jitter, jitter


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(8, 90), st.integers(8, 90), st.floats(0.1, 0.9), st.integers(0, 10**6))
def test_rectangles_lie_inside_and_have_their_area(height: int, width: int, share: float, seed: int) -> None:
    top, left, bottom, right = draw_rectangles(5, (height, width), share, generator(seed)).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= height).all()
    assert (right <= width).all()
    area = ((bottom - top) * (right - left)).double()
    # each side is rounded by at most a half
    assert ((area - share * height * width).abs() <= 0.5 * (height + width) + 0.25).all()
    masks = cut_masks(torch.stack([top, left, bottom, right], 1), (height, width))
    assert torch.equal(masks.sum((1, 2)), area.long())


@given(st.lists(st.sampled_from([0, 1, 2, 5, 254, 255]), min_size=1, max_size=12), st.booleans(), st.integers(0, 999))
def test_half_of_the_classes_are_drawn_whole(values: list[int], ignore_as_class: bool, seed: int) -> None:
    label = torch.tensor(values).view(1, 1, -1)
    mask = class_masks(label, draw_class_scores(1, generator(seed)), ignore_as_class=ignore_as_class)
    present = set(values) if ignore_as_class else set(values) - {255}
    drawn = set(label[mask].tolist())
    assert len(drawn) == math.ceil(len(present) / 2)
    assert drawn <= present
    assert torch.equal(mask, torch.isin(label, torch.tensor(sorted(drawn), dtype=torch.int64)))


def test_every_class_is_drawn_equally_often() -> None:
    label = torch.arange(4).view(1, 1, 4).expand(4000, 1, 4)
    mask = class_masks(label, draw_class_scores(4000, generator()), ignore_as_class=False)
    assert (mask.float().mean((0, 1)) - 0.5).abs().max() < 0.03


def test_pasting() -> None:
    mask = torch.tensor([[[True, False]]])
    source, target = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2)
    labels = torch.tensor([[[7, 7]]]), torch.tensor([[[9, 9]]])
    mixed = paste(mask, source, labels[0], target, labels[1], torch.full((1, 1, 2), 0.25))
    assert mixed.image[0, 0].tolist() == [[0, 1]]
    assert mixed.label.tolist() == [[[7, 9]]]
    assert mixed.weight.tolist() == [[[1, 0.25]]]


def test_samples_that_are_not_drawn_stay_as_they_are() -> None:
    image = torch.rand(6, 3, 20, 30, generator=generator())
    applied = torch.tensor([True, False] * 3)
    draws = draw_jitter(6, 0.2, 1.0, generator(1))
    jittered = jitter(image, JitterDraws(applied, draws.factors, draws.order))
    blurred = blur(image, BlurDraws(applied, torch.full((6,), 1.0)), vertical=True)
    for changed in (jittered, blurred):
        assert torch.equal(changed[1::2], image[1::2])
        assert not torch.equal(changed[0::2], image[0::2])
        assert changed.min() >= 0
        assert changed.max() <= 1 + 1e-6


def test_jittering_a_batch_is_jittering_each_sample() -> None:
    image = torch.rand(5, 3, 8, 8, generator=generator())
    draws = draw_jitter(5, 0.2, 0.8, generator(2))
    together = jitter(image, draws)
    for row in range(5):
        one = slice(row, row + 1)
        alone = jitter(image[one], JitterDraws(draws.applied[one], draws.factors[one], draws.order[one]))
        assert torch.equal(together[one], alone)


def test_blur_keeps_constants_and_goes_along_the_axes_asked_for() -> None:
    image = torch.full((1, 3, 32, 32), 0.3)
    draws = BlurDraws(torch.tensor([True]), torch.tensor([1.0]))
    assert (blur(image, draws, vertical=True) - 0.3).abs().max() < 1e-6
    image[:, :, 16] = 1  # a horizontal line
    assert (blur(image, draws, vertical=False) - image).abs().max() < 1e-6, "the width alone cannot blur it"
    assert blur(image, draws, vertical=True)[0, 0, 15, 16] > 0.3


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities(probability: float) -> None:
    assert draw_jitter(50, 0.2, probability, generator()).applied.float().mean() == probability
    draws = draw_blur(2000, (0.15, 1.15), probability, generator())
    assert draws.applied.float().mean() == probability
    assert draws.sigma.min() >= 0.15
    assert draws.sigma.max() <= 1.15
    assert abs(draws.sigma.mean() - 0.65) < 0.03
