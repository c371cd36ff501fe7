"""Strong augmentation of source crops: the parts, one by one, and their draws."""

from dataclasses import replace

import numpy as np
import pytest

from domainbridge.data.strong_augmentation import StrongDraws, augment_strongly, draw_strong
from domainbridge.seeding import numpy_generator

NOTHING = StrongDraws(None, 0.0, (0.0, 0.0, 0.0), None, None, 0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_nothing_drawn_changes_nothing(image: np.ndarray) -> None:
    assert np.array_equal(augment_strongly(image, NOTHING), image)


def test_gamma_and_haze_are_their_formulas(image: np.ndarray) -> None:
    gamma, color, share = (0.5, 1.0, 2.0), (200.0, 100.0, 50.0), 0.25
    bent = (image / 255) ** np.array(gamma) * 255
    assert np.allclose(augment_strongly(image, replace(NOTHING, gamma=gamma)), bent, atol=0.501)
    hazy = augment_strongly(image, replace(NOTHING, gamma=gamma, haze_share=share, haze_color=color))
    assert np.allclose(hazy, (1 - share) * bent + share * np.array(color), atol=0.501)


def test_noise_has_its_deviation_and_is_repeatable() -> None:
    gray = np.full((200, 200, 3), 128, np.uint8)
    draws = replace(NOTHING, noise=10.0, noise_seed=5)
    noisy = augment_strongly(gray, draws)
    assert noisy.std() == pytest.approx(10, rel=0.05)
    assert np.array_equal(noisy, augment_strongly(gray, draws))
    assert not np.array_equal(noisy, augment_strongly(gray, replace(draws, noise_seed=6)))


def test_blur_keeps_the_mean_and_removes_detail(image: np.ndarray) -> None:
    blurred = augment_strongly(image, replace(NOTHING, blur=1.5))
    assert blurred.mean() == pytest.approx(image.mean(), abs=3)
    assert blurred.std() < image.std() / 2


def test_draws_stay_within_their_bounds_and_each_part_comes_half_of_the_time() -> None:
    draws = [draw_strong(numpy_generator(0, step)) for step in range(400)]
    for part in ("gamma", "blur", "noise"):
        assert 0.4 < np.mean([getattr(draw, part) is not None for draw in draws]) < 0.6
    assert 0.4 < np.mean([draw.haze_share > 0 for draw in draws]) < 0.6
    assert max(draw.haze_share for draw in draws) < 0.7
    exponents = np.array([draw.gamma for draw in draws if draw.gamma is not None])
    assert exponents.min() > 2**-1.21
    assert exponents.max() < 2**1.21
    assert len({draw.noise_seed for draw in draws}) == len(draws)
