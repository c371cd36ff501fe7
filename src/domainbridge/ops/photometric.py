"""Color jitter and Gaussian blur of mixed images, drawn per sample, computed per batch (docs/method.md, section 1).

Images are RGB in [0, 1]. Brightness is additive, as in the published system: an image plus (factor - 1), clipped.
The other three multiply contrast, saturation and shift the hue angle.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from domainbridge.config.base import Probability, Section
from domainbridge.ops.transfer import rows_and_values_on
from domainbridge.types import Rows

__all__ = [
    "AugmentationConfig",
    "BlurDraws",
    "JitterDraws",
    "adjust_contrast_and_brightness",
    "adjust_saturation_and_hue",
    "augment",
    "blur",
    "blur_kernel_size",
    "draw_blur",
    "draw_jitter",
    "jitter",
]

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_TAPS = 8
"""Half width of the computed kernel: with sigma <= 1.15 a weight further out is below 1e-10 of the center's."""


class AugmentationConfig(Section):
    """Photometric augmentation of mixed images (step 1) and of the student's target images (step 2)."""

    jitter: float = Field(0.2, ge=0, le=0.5, description="strength of brightness, contrast, saturation and hue jitter")
    jitter_probability: Probability = Field(0.8, description="probability of color jitter, per sample")
    blur_sigma: tuple[float, float] = Field((0.15, 1.15), description="lowest and highest sigma of the blur, in pixels")
    blur_probability: Probability = Field(0.5, description="probability of Gaussian blur, per sample")

    @field_validator("blur_sigma")
    @classmethod
    def _ordered(cls, sigma: tuple[float, float]) -> tuple[float, float]:
        if not 0 < sigma[0] <= sigma[1] <= 2:
            raise ValueError(f"expected 0 < lowest <= highest <= 2 pixels, found {sigma}")
        return sigma


@dataclass(frozen=True)
class JitterDraws:
    """Per-sample draws, on the CPU.

    Attributes:
        applied: bool (batch,).
        factors: float32 (batch, 4): brightness, contrast, saturation as factors around 1, hue as a share of a turn.
        order: int64 (batch, 4): which of the four comes first, second, ...
    """

    applied: Tensor
    factors: Tensor
    order: Tensor

    def __getitem__(self, rows: slice) -> "JitterDraws":
        return JitterDraws(self.applied[rows], self.factors[rows], self.order[rows])


@dataclass(frozen=True)
class BlurDraws:
    """Per-sample draws, on the CPU.

    Attributes:
        applied: bool (batch,).
        sigma: float32 (batch,), in pixels.
    """

    applied: Tensor
    sigma: Tensor

    def __getitem__(self, rows: slice) -> "BlurDraws":
        return BlurDraws(self.applied[rows], self.sigma[rows])


def augment(
    image: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
    rows: Rows | None = None,
    *,
    vertical_blur: bool = True,
) -> Tensor:
    """Jitter, then blur, each drawn per sample.

    Computed in float32 also where the forward passes are not: colors are data, and CUDA's autocast refuses to write the
    half-precision result of a convolution into a float32 image.

    Args:
        image: float32 (batch, 3, height, width) in [0, 1].
        config: strengths and probabilities.
        generator: a CPU generator.
        rows: rows of the whole batch that ``image`` holds; None: all of them.
        vertical_blur: see :func:`blur`.
    """
    rows = rows or Rows.whole(len(image))
    with torch.autocast(image.device.type, enabled=False):
        jittered = jitter(image, rows.of(draw_jitter(rows.total, config.jitter, config.jitter_probability, generator)))
        draws = rows.of(draw_blur(rows.total, config.blur_sigma, config.blur_probability, generator))
        return blur(jittered, draws, vertical=vertical_blur)


def draw_jitter(batch: int, strength: float, probability: float, generator: torch.Generator) -> JitterDraws:
    """Factors uniform in 1 +- strength (hue: 0 +- strength), a random order, applied with ``probability``."""
    applied = torch.rand(batch, generator=generator) < probability
    factors = (2 * torch.rand(batch, 4, generator=generator) - 1) * strength
    factors[:, :HUE] += 1
    order = torch.rand(batch, 4, generator=generator).argsort(1)
    return JitterDraws(applied, factors, order)


def draw_blur(batch: int, sigma: tuple[float, float], probability: float, generator: torch.Generator) -> BlurDraws:
    """Sigma uniform in the range, applied with ``probability``."""
    applied = torch.rand(batch, generator=generator) < probability
    low, high = sigma
    return BlurDraws(applied, low + (high - low) * torch.rand(batch, generator=generator))


def jitter(image: Tensor, draws: JitterDraws) -> Tensor:
    """Apply each sample's four adjustments in its own order.

    At each place of the order, the samples that want brightness or contrast are adjusted together, and so are those
    that want saturation or hue: at most eight groups, whatever the batch size, each sample in four of them.

    Args:
        image: float32 (batch, 3, height, width) in [0, 1].
        draws: of the same batch size.
    """
    if not draws.applied.any():
        return image
    adjustment = draws.order.T  # (place, batch)
    strength = draws.factors.gather(1, draws.order).T
    of_colors = adjustment >= SATURATION
    wanted = draws.applied & torch.stack([~of_colors, of_colors], 1)  # (place, kind, batch)
    first = strength.where((adjustment == CONTRAST) | (adjustment == SATURATION), 1.0)
    second = (strength - 1).where(adjustment == BRIGHTNESS, strength.where(adjustment == HUE, 0.0))
    place, _, rows = torch.nonzero(wanted, as_tuple=True)
    lengths = wanted.sum(2).flatten().tolist()
    index, *values = rows_and_values_on(image.device, rows, first[place, rows], second[place, rows])
    groups = zip(*(torch.split(part, lengths) for part in (index, *(v.view(-1, 1, 1, 1) for v in values))), strict=True)
    image = image.clone()
    for number, (here, one, other) in enumerate(groups):
        if len(here):
            adjust = adjust_saturation_and_hue if number % 2 else adjust_contrast_and_brightness
            image[here] = adjust(image[here], one, other)
    return image


def adjust_contrast_and_brightness(image: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """Image * factor + offset, clipped to [0, 1]; factor and offset (batch, 1, 1, 1)."""
    return (image * factor + offset).clamp(0, 1)


def adjust_saturation_and_hue(image: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Multiply the HSV saturation (clipped to [0, 1]) and add ``turn`` (in turns) to the hue; both (batch, 1, 1, 1)."""
    maximum, argmax = image.max(1, keepdim=True)
    chroma = maximum - image.amin(1, keepdim=True)
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    red, green, blue = image.chunk(3, 1)
    sixth = torch.cat([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4], 1)
    hue = (sixth.gather(1, argmax) / 6 + turn).remainder(1)
    new_saturation = (chroma / (maximum + 1e-8) * saturation).clamp(0, 1)
    # RGB from HSV without cases: channel n is v - v*s*max(0, min(k, 4 - k, 1)), k = (n + 6h) mod 6, n = 5, 3, 1.
    # (arange is made on the device; a tensor of a list would be copied there, and waited for.)
    k = (hue * 6 + torch.arange(5, 0, -2, device=hue.device).view(1, 3, 1, 1)).remainder(6)
    return maximum * (1 - new_saturation * torch.minimum(k, 4 - k).clamp(0, 1))


def blur_kernel_size(length: int) -> int:
    """Kernel length for a crop side: a tenth of it, made odd as the published system does (512 -> 51)."""
    tenth = math.ceil(0.1 * length)
    return math.floor(tenth - 0.5 + tenth % 2)


def blur(image: Tensor, draws: BlurDraws, *, vertical: bool) -> Tensor:
    """Gaussian blur with each sample's own sigma; samples without blur keep their values exactly.

    Args:
        image: float32 (batch, 3, height, width).
        draws: of the same batch size.
        vertical: also along the height. The published code blurs along the width only, with a kernel whose
            length follows from the height.
    """
    rows = torch.nonzero(draws.applied).flatten()
    if not len(rows):
        return image
    index, sigma = rows_and_values_on(image.device, rows, draws.sigma[rows])
    blurred = _blur_along(image[index], sigma, blur_kernel_size(image.shape[2]), axis=3)
    if vertical:
        blurred = _blur_along(blurred, sigma, blur_kernel_size(image.shape[3]), axis=2)
    return image.index_copy(0, index, blurred)


def _blur_along(image: Tensor, sigma: Tensor, kernel_size: int, axis: int) -> Tensor:
    batch, channels, height, width = image.shape
    radius = min(kernel_size // 2, _TAPS, image.shape[axis] - 1)  # no more can be mirrored
    offset = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    # One group per sample and channel: every sample has its own kernel in a single convolution.
    flat = image.reshape(1, batch * channels, height, width)
    if axis == 3:
        flat, weight = F.pad(flat, (radius, radius, 0, 0), mode="reflect"), kernel[:, None, None, :]
    else:
        flat, weight = F.pad(flat, (0, 0, radius, radius), mode="reflect"), kernel[:, None, :, None]
    return F.conv2d(flat, weight, groups=batch * channels).view(batch, channels, height, width)
