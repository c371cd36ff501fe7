"""What a segmentation head is: from the backbone's maps to the feature that prototypes average, and a classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from domainbridge.config.sections import HeadConfig
from domainbridge.models.backbones.base import Backbone
from domainbridge.registry import Registry

__all__ = [
    "HEADS",
    "Head",
    "HeadSpec",
    "PyramidHead",
    "build_head",
    "conv_bn_relu",
    "pointwise_bn_relu",
    "register_head",
    "reset_classifier",
    "separable_bn_relu",
]

_DEFAULTS = HeadConfig()


@dataclass(frozen=True)
class HeadSpec:
    """Shapes of a head, as plain values.

    Attributes:
        kind: name of the head: "deeplabv2", the published one, "deeplabv3plus" with a skip from stride 4, "linear",
            "upernet", "daformer", or another registered one.
        channels: of the feature.
        dilations: of the parallel convolutions.
        dropout: share of whole feature channels dropped in training.
        skip_channels: of the skip, "deeplabv3plus" only.
    """

    kind: str = _DEFAULTS.kind
    channels: int = _DEFAULTS.channels
    dilations: tuple[int, ...] = _DEFAULTS.dilations
    dropout: float = _DEFAULTS.dropout
    skip_channels: int = _DEFAULTS.skip_channels


class Head(nn.Module):
    """Base of all heads.

    ``forward`` gives the feature, (batch, channels, h, w), after dropout. It takes two maps: the backbone's fine map at
    stride 4, (batch, fine channels, height / 4, width / 4), and the deepest map, at the output stride. A head that
    ``needs`` the "deepest" alone gets some other map first, and one that needs "all" gets every map.

    Attributes:
        classifier: 1x1 convolution from the feature to the logits; applied by the segmenter.
        needs: maps that the head uses: "fine" and the deepest, the "deepest" alone, or "all", as a
            :class:`PyramidHead` does.
    """

    classifier: nn.Conv2d
    needs: ClassVar[Literal["fine", "deepest", "all"]] = "fine"

    def reset(self, *, published: bool) -> None:
        """Draw initial weights; ``published``: with the quirks of the authors' code."""
        raise NotImplementedError


class PyramidHead(Head):
    """Base of heads that use all maps, the finest first; those of a plain ViT are all at the output stride.

    The constructor takes (spec, channels of the maps, strides of the maps, number of classes). ``strides`` is empty for
    a backbone that does not say them.
    """

    needs = "all"

    def __init__(self, spec: HeadSpec, channels: Sequence[int], strides: Sequence[int], num_classes: int) -> None:
        super().__init__()


HeadBuilder = Callable[..., Head]

HEADS: Registry[HeadBuilder] = Registry("model.head.kind", "domainbridge.models.heads", "domainbridge.heads")

register_head = HEADS.register
"""Decorator of a head's class, whose constructor takes (spec, fine channels, channels, number of classes)."""


def build_head(spec: HeadSpec, backbone: Backbone, num_classes: int) -> Head:
    """The head of that kind, for a backbone's maps.

    Raises:
        RecipeError: no such head.
    """
    build = HEADS[spec.kind]
    if getattr(build, "needs", "fine") == "all":
        return build(spec, backbone.map_channels, backbone.map_strides, num_classes)
    return build(spec, backbone.fine_channels, backbone.channels, num_classes)


def pointwise_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def reset_classifier(head: Head) -> None:
    """N(0, 0.01), without bias: all classes begin alike."""
    nn.init.normal_(head.classifier.weight, std=0.01)
    assert head.classifier.bias is not None
    nn.init.zeros_(head.classifier.bias)


def conv_bn_relu(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Dilated 3x3 convolution, BatchNorm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_bn_relu(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Dilated depthwise 3x3 convolution and a 1x1 convolution, BatchNorm and ReLU behind each."""
    depthwise = nn.Conv2d(
        in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels, bias=False
    )
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True), *pointwise_bn_relu(in_channels, out_channels)
    )
