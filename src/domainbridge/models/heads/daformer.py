"""DAFormer's head: all maps side by side, fused with context from dilated separable convolutions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from domainbridge.models.heads.base import (
    HeadSpec,
    PyramidHead,
    conv_bn_relu,
    pointwise_bn_relu,
    register_head,
    reset_classifier,
    separable_bn_relu,
)
from domainbridge.ops.upsample import upsample

__all__ = ["DAFormerHead"]


@register_head("daformer")
class DAFormerHead(PyramidHead):
    """Every map embedded in the same width, upsampled to the finest one, fused by an ASPP of separable convolutions.

    Context-aware feature fusion (Hoyer et al., DAFormer, arXiv 2111.14887, section 3.2); published with channels 256
    and dilations 6, 12 and 18 beside the 1x1 branch. The maps of a plain ViT stay at the output stride.
    """

    def __init__(self, spec: HeadSpec, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        """``channels``: of the backbone's maps; ``strides`` are not used."""
        super().__init__(spec, channels, strides, num_classes)
        width = spec.channels
        self.embed = nn.ModuleList(nn.Conv2d(each, width, 1) for each in channels)
        joined = width * len(channels)
        dilated = (separable_bn_relu(joined, width, dilation) for dilation in spec.dilations)
        self.branches = nn.ModuleList([pointwise_bn_relu(joined, width), *dilated])
        self.fuse = conv_bn_relu(width * len(self.branches), width)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """The feature, at the finest map's resolution."""
        size = maps[0].shape[-2], maps[0].shape[-1]
        embedded = [upsample(embed(each), size) for embed, each in zip(self.embed, maps, strict=True)]
        joined = torch.cat(embedded, 1)
        feature: Tensor = self.dropout(self.fuse(torch.cat([branch(joined) for branch in self.branches], 1)))
        return feature

    def reset(self, *, published: bool) -> None:
        """N(0, 0.01) for the classifier; the convolutions keep PyTorch's default."""
        reset_classifier(self)
