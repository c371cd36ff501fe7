"""Strong photometric augmentation of source crops: domain randomization of light, haze, sensor and lens.

The published method leaves the source as it is in step 1. A model that is trained on source images alone, and that
later runs or adapts under another camera or weather, gains from source images that vary more than the source itself
(domain randomization, Tobin et al., IROS 2017; the strengths are ours). Pure functions of explicit draws.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["StrongDraws", "augment_strongly", "draw_strong"]

Image = NDArray[np.uint8]

_GAMMA = 2.0
"""Exponents from 1/2 (light) to 2 (dark), uniform in their logarithm."""
_HAZE = 0.7
"""Largest share of the haze's color in a pixel; scattered light is added in this way (Koschmieder's law)."""
_NOISE = 20.0
"""Largest standard deviation of the noise, in gray levels of 255."""
_BLUR = (0.3, 1.5)
"""Standard deviation of the blur in pixels."""


@dataclass(frozen=True)
class StrongDraws:
    """Draws of one crop; None skips a part.

    Attributes:
        gamma: exponent of values in [0, 1], per channel RGB: brightness and tint.
        haze_share: share of the haze's color, in [0, 0.7).
        haze_color: RGB in [0, 255].
        blur: standard deviation in pixels.
        noise: standard deviation in gray levels.
        noise_seed: of the noise's own generator.
    """

    gamma: tuple[float, float, float] | None
    haze_share: float
    haze_color: tuple[float, float, float]
    blur: float | None
    noise: float | None
    noise_seed: int


def draw_strong(generator: np.random.Generator) -> StrongDraws:
    """Draws in which each of the four parts has the probability 1/2."""
    on = generator.random(4) < 0.5
    exponent = generator.uniform(-1, 1) + generator.uniform(-0.2, 0.2, 3)
    share, gray, tint = generator.uniform(0, _HAZE), generator.uniform(30, 225), generator.uniform(-30, 30, 3)
    blur, noise = generator.uniform(*_BLUR), generator.uniform(0, _NOISE)
    red, green, blue = (_GAMMA**exponent).tolist()
    haze = np.clip(gray + tint, 0, 255).tolist()
    return StrongDraws(
        gamma=(red, green, blue) if on[0] else None,
        haze_share=float(share) if on[1] else 0.0,
        haze_color=(haze[0], haze[1], haze[2]),
        blur=float(blur) if on[2] else None,
        noise=float(noise) if on[3] else None,
        noise_seed=int(generator.integers(2**63)),
    )


def augment_strongly(image: Image, draws: StrongDraws) -> Image:
    """Gamma, haze, blur, noise, in the order in which light, air, lens and sensor act.

    Args:
        image: RGB, uint8 (height, width, 3).
        draws: of :func:`draw_strong`.

    Returns:
        A new image of the same shape, or the image itself where nothing was drawn.
    """
    if draws.gamma is not None or draws.haze_share > 0:
        image = cv2.LUT(image, _table(draws)).astype(np.uint8, copy=False)
    if draws.blur is not None:
        image = cv2.GaussianBlur(image, (0, 0), draws.blur).astype(np.uint8, copy=False)
    if draws.noise is not None:
        generator = np.random.default_rng(draws.noise_seed)
        noise = generator.standard_normal(image.shape, np.float32) * np.float32(draws.noise)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def _table(draws: StrongDraws) -> Image:
    """The 256 gray levels of each channel after gamma and haze, uint8 (256, 1, 3)."""
    levels = np.linspace(0, 1, 256)[:, None] ** np.asarray(draws.gamma or (1.0, 1.0, 1.0))
    hazy = (1 - draws.haze_share) * 255 * levels + draws.haze_share * np.asarray(draws.haze_color)
    table: Image = np.rint(hazy).astype(np.uint8)[:, None, :]
    return table
