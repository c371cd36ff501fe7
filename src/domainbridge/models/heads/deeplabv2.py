"""The published head: parallel dilated convolutions (docs/method.md, section 6)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from domainbridge.models.heads.base import Head, HeadSpec, conv_bn_relu, register_head, reset_classifier

__all__ = ["DeepLabV2Head"]


@register_head("deeplabv2")
class DeepLabV2Head(Head):
    """Parallel dilated 3x3 convolutions, a fusing 3x3 convolution, dropout; then a 1x1 classifier.

    The variant of DeepLab v2's head (Chen et al., arXiv 1606.00915) that the authors use.
    """

    needs: ClassVar[Literal["fine", "deepest", "all"]] = "deepest"

    def __init__(self, spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> None:
        """``channels``: of the backbone's deepest map; its fine map is not used."""
        super().__init__()
        width = spec.channels // len(spec.dilations)
        self.branches = nn.ModuleList(conv_bn_relu(channels, width, dilation) for dilation in spec.dilations)
        self.fuse = conv_bn_relu(width * len(spec.dilations), spec.channels, 1)
        self.dropout = nn.Dropout2d(spec.dropout)
        self.classifier = nn.Conv2d(spec.channels, num_classes, 1)

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        """The feature, at the deepest map's resolution; the classifier is applied by the caller."""
        dropped: Tensor = self.dropout(self.fused(deepest))
        return dropped

    def fused(self, deepest: Tensor) -> Tensor:
        """The branches side by side, fused."""
        fused: Tensor = self.fuse(torch.cat([branch(deepest) for branch in self.branches], 1))
        return fused

    def reset(self, *, published: bool) -> None:
        """Initial weights: N(0, 0.01) for branches and classifier, Kaiming for the fusing convolution.

        Args:
            published: as the authors' code does (measured on it): the branches' BatchNorm weights are drawn from
                N(0, 0.01) too, by a rule meant for convolutions, and the classifier keeps PyTorch's default.
        """
        for module in self.branches.modules():
            if isinstance(module, nn.Conv2d) or (published and isinstance(module, nn.BatchNorm2d)):
                nn.init.normal_(module.weight, std=0.01)
        nn.init.kaiming_normal_(self.fuse.get_parameter("0.weight"), mode="fan_out")
        if not published:
            reset_classifier(self)
