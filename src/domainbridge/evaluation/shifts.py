"""Synthetic shifts of labeled images: the domain gaps of known size that a predicted mIoU is calibrated on."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from domainbridge.ops.photometric import BlurDraws, adjust_contrast_and_brightness, blur, draw_jitter, jitter

__all__ = ["SHIFTS", "TARGET_JITTER", "jittered"]

TARGET_JITTER = 0.2
"""Strength of the jitter whose effect on target predictions is scored; the published augmentation's."""
_HAZE = 0.8
"""Gray level of haze."""

Shift = Callable[[Tensor, torch.Generator], Tensor]


def jittered(image: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Random brightness, contrast, saturation and hue, drawn once; float32 (1, 3, height, width) in [0, 1]."""
    return jitter(image, draw_jitter(len(image), strength, 1.0, generator))


def _blurred(image: Tensor, generator: torch.Generator, sigma: float) -> Tensor:
    draws = BlurDraws(torch.ones(len(image), dtype=torch.bool), torch.full((len(image),), sigma))
    return blur(image, draws, vertical=True)


def _noisy(image: Tensor, generator: torch.Generator, deviation: float) -> Tensor:
    return (image + deviation * torch.randn(image.shape, generator=generator).to(image.device)).clamp(0, 1)


def _hazy(image: Tensor, generator: torch.Generator, share: float) -> Tensor:
    factor, offset = torch.tensor(1 - share), torch.tensor(_HAZE * share)
    return adjust_contrast_and_brightness(image, factor.to(image.device), offset.to(image.device))


def _unchanged(image: Tensor, generator: torch.Generator) -> Tensor:
    return image


SHIFTS: dict[str, Shift] = {
    "none": _unchanged,
    "jitter 0.2": partial(jittered, strength=0.2),
    "jitter 0.4": partial(jittered, strength=0.4),
    "blur 1": partial(_blurred, sigma=1.0),
    "blur 2": partial(_blurred, sigma=2.0),
    "noise 0.05": partial(_noisy, deviation=0.05),
    "noise 0.1": partial(_noisy, deviation=0.1),
    "haze 0.3": partial(_hazy, share=0.3),
    "haze 0.6": partial(_hazy, share=0.6),
}
"""By name, weaker before stronger; each takes float32 (1, 3, height, width) in [0, 1] and a CPU generator."""
