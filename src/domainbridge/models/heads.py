"""Heads: from the backbone's maps to the feature that prototypes are made of, and the classifier on it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from domainbridge.models.resizing import upsample

__all__ = ["Head", "HeadSpec", "SkipHead", "build_head"]


@dataclass(frozen=True)
class HeadSpec:
    """Shapes of a head, as plain values.

    Attributes:
        kind: "deeplabv2", the published one, or "deeplabv3plus" with a skip from stride 4.
        channels: of the feature.
        dilations: of the parallel convolutions.
        dropout: share of whole feature channels dropped in training.
        skip_channels: of the skip, "deeplabv3plus" only.
    """

    kind: str = "deeplabv2"
    channels: int = 256
    dilations: tuple[int, ...] = (6, 12)
    dropout: float = 0.1
    skip_channels: int = 48


class Head(nn.Module):
    """Parallel dilated 3x3 convolutions, a fusing 3x3 convolution, dropout; then a 1x1 classifier.

    The variant of DeepLab v2's head (Chen et al., arXiv 1606.00915) that the authors use.
    """

    def __init__(self, spec: HeadSpec, channels: int, num_classes: int) -> None:
        """``channels``: of the backbone's deepest map."""
        super().__init__()
        width = spec.channels // len(spec.dilations)
        self.branches = nn.ModuleList(_conv_bn_relu(channels, width, dilation) for dilation in spec.dilations)
        self.fuse = _conv_bn_relu(width * len(spec.dilations), spec.channels, 1)
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
            nn.init.normal_(self.classifier.weight, std=0.01)
            assert self.classifier.bias is not None
            nn.init.zeros_(self.classifier.bias)


class SkipHead(Head):
    """The same, refined at stride 4 with the backbone's fine map by a separable convolution.

    The decoder of DeepLab v3+ (Chen et al., arXiv 1802.02611): thin things survive a coarse, cheap backbone.
    """

    def __init__(self, spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> None:
        """``fine_channels`` and ``channels``: of the backbone's two maps."""
        super().__init__(spec, channels, num_classes)
        both = spec.channels + spec.skip_channels
        self.skip = nn.Sequential(
            nn.Conv2d(fine_channels, spec.skip_channels, 1, bias=False),
            nn.BatchNorm2d(spec.skip_channels),
            nn.ReLU(inplace=True),
        )
        self.refine = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU(inplace=True),
            nn.Conv2d(both, spec.channels, 1, bias=False),
            nn.BatchNorm2d(spec.channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        """The feature, at the fine map's resolution."""
        coarse = upsample(self.fused(deepest), (fine.shape[-2], fine.shape[-1]))
        dropped: Tensor = self.dropout(self.refine(torch.cat([coarse, self.skip(fine)], 1)))
        return dropped


def build_head(spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> Head:
    """The head of that kind, for a backbone's two maps."""
    if spec.kind == "deeplabv3plus":
        return SkipHead(spec, fine_channels, channels, num_classes)
    assert spec.kind == "deeplabv2", spec.kind
    return Head(spec, channels, num_classes)


def _conv_bn_relu(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
