"""A pyramid head: all maps of the backbone, from the deepest to the finest."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbridge.models.heads.base import (
    HeadSpec,
    PyramidHead,
    conv_bn_relu,
    pointwise_bn_relu,
    register_head,
    reset_classifier,
)
from domainbridge.ops.upsample import upsample

__all__ = ["UPerNetHead"]

_POOLED = (1, 2, 3, 6)
"""Sides of the pooled deepest map, in cells (arXiv 1612.01105)."""


@register_head("upernet")
class UPerNetHead(PyramidHead):
    """Pooling pyramid on the deepest map, top-down pathway, all levels fused at the finest one.

    UPerNet (Xiao et al., arXiv 1807.10221). The maps of a plain ViT have one stride: they are moved to strides 4, 8 and
    16 behind their 1x1 convolutions, where they are narrow.
    """

    def __init__(self, spec: HeadSpec, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        """``channels``, ``strides``: of the backbone's maps; without strides every map stays as it is."""
        super().__init__(spec, channels, strides, num_classes)
        width = spec.channels
        self.factors = [max(stride // (4 << level), 1) for level, stride in enumerate(strides)] or [1] * len(channels)
        self.pooled = nn.ModuleList(pointwise_bn_relu(channels[-1], width) for _ in _POOLED)
        self.bottleneck = conv_bn_relu(channels[-1] + width * len(_POOLED), width)
        self.lateral = nn.ModuleList(pointwise_bn_relu(each, width) for each in channels[:-1])
        self.smooth = nn.ModuleList(conv_bn_relu(width, width) for _ in channels[:-1])
        self.fuse = conv_bn_relu(width * len(channels), width)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """The feature, at the resolution of the finest level."""
        levels = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=False)]
        levels.append(self._pyramid_pooling(maps[-1]))
        levels = [_enlarged(level, factor) for level, factor in zip(levels, self.factors, strict=True)]
        for below in range(len(levels) - 2, -1, -1):
            levels[below] = levels[below] + upsample(levels[below + 1], _size(levels[below]))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=False)] + levels[-1:]
        feature: Tensor = self.dropout(self.fuse(torch.cat([upsample(each, _size(levels[0])) for each in smoothed], 1)))
        return feature

    def _pyramid_pooling(self, deepest: Tensor) -> Tensor:
        pooled = (block(F.adaptive_avg_pool2d(deepest, side)) for block, side in zip(self.pooled, _POOLED, strict=True))
        joined: Tensor = self.bottleneck(torch.cat([deepest, *(upsample(each, _size(deepest)) for each in pooled)], 1))
        return joined

    def reset(self, *, published: bool) -> None:
        """N(0, 0.01) for the classifier; the convolutions keep PyTorch's default."""
        reset_classifier(self)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    return maps if factor == 1 else upsample(maps, (maps.shape[-2] * factor, maps.shape[-1] * factor))
