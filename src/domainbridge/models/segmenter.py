"""The network: normalisation, backbone, dilated head (METHOD section 6)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainbridge.models.backbone import Backbone, build_backbone, normalisation_of

__all__ = ["DilatedHead", "ModelSpec", "Segmentation", "Segmenter", "build_segmenter", "upsample"]


class Segmentation(NamedTuple):
    """What the network says, at feature resolution (1 / output stride).

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
        backbone: see :func:`domainbridge.models.backbone.build_backbone`.
        output_stride: 8, 16 or 32.
        num_classes: K.
        channels: of the head's feature.
        dilations: of the head's parallel convolutions.
        dropout: share of feature channels dropped in training.
    """

    backbone: str
    output_stride: int
    num_classes: int
    channels: int = 256
    dilations: tuple[int, ...] = (6, 12)
    dropout: float = 0.1


class DilatedHead(nn.Module):
    """Parallel dilated 3x3 convolutions, a fusing 3x3 convolution, dropout, a 1x1 classifier.

    The variant of DeepLab v2's head that the authors use; DeepLab: Chen et al., arXiv 1606.00915.
    """

    def __init__(
        self, in_channels: int, num_classes: int, channels: int, dilations: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        width = channels // len(dilations)
        self.branches = nn.ModuleList(_conv_bn_relu(in_channels, width, dilation) for dilation in dilations)
        self.fuse = _conv_bn_relu(width * len(dilations), channels, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Tensor) -> Segmentation:
        """(batch, in_channels, h, w) to logits and features of the same h x w."""
        features = self.fuse(torch.cat([branch(features) for branch in self.branches], 1))
        features = self.dropout(features)
        return Segmentation(self.classifier(features), features)

    def reset(self, *, published: bool) -> None:
        """Initial weights: N(0, 0.01) for branches and classifier, Kaiming for the fusing convolution.

        Args:
            published: also draw the branches' BatchNorm weights from N(0, 0.01), as the authors' rule (meant for
                convolutions) does; otherwise they start at 1.
        """
        for branch in self.branches:
            convolution, norm = branch[0], branch[1]
            nn.init.normal_(convolution.weight, std=0.01)
            if published:
                nn.init.normal_(norm.weight, std=0.01)
        nn.init.kaiming_normal_(self.fuse[0].weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)


def _conv_bn_relu(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Segmenter(nn.Module):
    """Backbone and head behind one door: RGB in [0, 1] goes in, so that nobody can forget to normalise."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, head: DilatedHead, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Segmentation:
        """Float32 (batch, 3, height, width) in [0, 1] to logits and features at feature resolution."""
        normalised = ((image - self.mean) / self.std).contiguous(memory_format=self._memory_format())
        segmentation: Segmentation = self.head(self.backbone(normalised))
        return segmentation

    def _memory_format(self) -> torch.memory_format:
        weight = self.head.fuse[0].weight
        channels_last = weight.is_contiguous(memory_format=torch.channels_last)
        return torch.channels_last if channels_last else torch.contiguous_format

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the head's rate."""
        return list(self.head.parameters())

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the base rate."""
        return list(self.backbone.parameters())


def build_segmenter(spec: ModelSpec, *, published_init: bool = False) -> Segmenter:
    """A network with random weights, drawn from torch's global generator.

    Raises:
        ModelError: the backbone cannot be built.
    """
    backbone = build_backbone(spec.backbone, spec.output_stride)
    head = DilatedHead(backbone.channels, spec.num_classes, spec.channels, spec.dilations, spec.dropout)
    head.reset(published=published_init)
    return Segmenter(backbone, head, *normalisation_of(spec.backbone))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned: (batch, channels, h, w) to (batch, channels, *size)."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)
