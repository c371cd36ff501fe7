"""A head with a skip from stride 4, for coarse and cheap backbones."""

import torch
from torch import Tensor

from domainbridge.models.heads.base import HeadSpec, pointwise_bn_relu, register_head, separable_bn_relu
from domainbridge.models.heads.deeplabv2 import DeepLabV2Head
from domainbridge.ops.upsample import upsample

__all__ = ["DeepLabV3PlusHead"]


@register_head("deeplabv3plus")
class DeepLabV3PlusHead(DeepLabV2Head):
    """The same, refined at stride 4 with the backbone's fine map by a separable convolution.

    The decoder of DeepLab v3+ (Chen et al., arXiv 1802.02611): thin things survive a coarse, cheap backbone.
    """

    needs = "fine"

    def __init__(self, spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> None:
        """``fine_channels`` and ``channels``: of the backbone's two maps."""
        super().__init__(spec, fine_channels, channels, num_classes)
        self.skip = pointwise_bn_relu(fine_channels, spec.skip_channels)
        self.refine = separable_bn_relu(spec.channels + spec.skip_channels, spec.channels)

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        """The feature, at the fine map's resolution."""
        coarse = upsample(self.fused(deepest), (fine.shape[-2], fine.shape[-1]))
        dropped: Tensor = self.dropout(self.refine(torch.cat([coarse, self.skip(fine)], 1)))
        return dropped
