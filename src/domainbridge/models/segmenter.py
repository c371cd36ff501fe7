"""The network: normalization, backbone, head (docs/method.md, section 6)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from domainbridge.models.backbones.base import Backbone, build_backbone, normalization_of
from domainbridge.models.heads.base import Head, HeadSpec, build_head

__all__ = ["ModelSpec", "Segmentation", "Segmenter", "build_segmenter"]


_LARGEST_STRIDE = 32
"""Of a backbone that does not say its strides."""


class Segmentation(NamedTuple):
    """The network's output, at the head's resolution: 1 / output stride, or 1 / 4 with a skip.

    Attributes:
        logits: float32 (batch, classes, h, w).
        features: float32 (batch, channels, h, w): the activation before the classifier, after dropout.
    """

    logits: Tensor
    features: Tensor


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides the shapes of the weights, as plain values.

    Attributes:
        backbone: see :func:`domainbridge.models.backbones.base.build_backbone`.
        output_stride: 8, 16 or 32.
        num_classes: K.
        head: see :class:`domainbridge.models.heads.base.HeadSpec`.
    """

    backbone: str
    output_stride: int
    num_classes: int
    head: HeadSpec = HeadSpec()


class SeenImages(Protocol):
    """What keeps the maps of images; see :class:`domainbridge.models.frozen_trunk.FrozenFeatures`."""

    def of(self, image: Tensor, trunk: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The backbone's maps of an image."""
        ...


class Segmenter(nn.Module):
    """Normalization, backbone and head in one module: the input is RGB in [0, 1].

    Attributes:
        trunk_frozen: the backbone stays in evaluation mode, whatever mode the network is in.
        seen: the maps of a frozen backbone, shared with teachers; None: the backbone runs in every pass.
    """

    mean: Tensor
    std: Tensor
    trunk_frozen: bool = False
    seen: SeenImages | None = None

    def __init__(self, backbone: Backbone, head: Head, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._layout_weight = next((name for name, weight in self.named_parameters() if _shows_layout(weight)), None)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def grid(self) -> int:
        """The largest stride, in pixels: cells lie on an image as they should where it divides the image's sides."""
        return max(self.backbone.map_strides, default=_LARGEST_STRIDE)

    def forward(self, image: Tensor) -> Segmentation:
        """Float32 (batch, 3, height, width) in [0, 1] to logits and features at the head's resolution."""
        maps = self._maps(image) if self.seen is None else self.seen.of(image, self._maps)
        features = self.head(*maps) if self.head.needs == "all" else self.head(maps[0], maps[-1])
        return Segmentation(self.head.classifier(features), features)

    def train(self, mode: bool = True) -> Self:
        """As for every module; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.trunk_frozen:
            self.backbone.eval()
        return self

    def _maps(self, image: Tensor) -> tuple[Tensor, ...]:
        """The backbone's maps of an image in [0, 1]."""
        normalized = ((image - self.mean) / self.std).contiguous(memory_format=self._memory_format())
        maps: tuple[Tensor, ...] = self.backbone(normalized, pyramid=self.head.needs != "fine")
        return maps

    def _memory_format(self) -> torch.memory_format:
        """The weights' layout: the normalized image follows it."""
        if self._layout_weight is None:
            return torch.contiguous_format
        channels_last = self.get_parameter(self._layout_weight).is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if channels_last else torch.contiguous_format


def _shows_layout(weight: Tensor) -> bool:
    """Whether a weight is a convolution's whose two layouts differ."""
    return weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[-1] > 1


def build_segmenter(spec: ModelSpec, *, published_init: bool = False) -> Segmenter:
    """A network with random weights, drawn from torch's global generator.

    Raises:
        ModelError: the backbone cannot be built.
    """
    backbone = build_backbone(spec.backbone, spec.output_stride)
    head = build_head(spec.head, backbone, spec.num_classes)
    head.reset(published=published_init)
    return Segmenter(backbone, head, *normalization_of(spec.backbone))
