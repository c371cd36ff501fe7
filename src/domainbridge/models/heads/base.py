"""What a segmentation head is: from the backbone's maps to the feature that prototypes average, and a classifier."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from domainbridge.config.sections import HeadConfig
from domainbridge.registry import Registered, Registry

__all__ = ["HEADS", "Head", "HeadSpec", "build_head", "conv_bn_relu", "register_head"]

_DEFAULTS = HeadConfig()


@dataclass(frozen=True)
class HeadSpec:
    """Shapes of a head, as plain values.

    Attributes:
        kind: name of the head: "deeplabv2", the published one, "deeplabv3plus" with a skip from stride 4, or another
            registered one.
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

    Attributes:
        classifier: 1x1 convolution from the feature to the logits; applied by the segmenter.
    """

    classifier: nn.Conv2d

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        """The feature, (batch, channels, h, w), after dropout.

        Args:
            fine: the backbone's map at stride 4, (batch, fine channels, height / 4, width / 4).
            deepest: the backbone's deepest map, at the output stride.
        """
        raise NotImplementedError

    def reset(self, *, published: bool) -> None:
        """Draw initial weights; ``published``: with the quirks of the authors' code."""
        raise NotImplementedError


HeadBuilder = Callable[[HeadSpec, int, int, int], Head]

HEADS: Registry[HeadBuilder] = Registry("model.head.kind", "domainbridge.models.heads", "domainbridge.heads")


def register_head(kind: str) -> Callable[[Registered], Registered]:
    """Decorator of a head's class, whose constructor takes (spec, fine channels, channels, number of classes)."""
    return HEADS.register(kind)


def build_head(spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> Head:
    """The head of that kind, for a backbone's two maps.

    Raises:
        RecipeError: no such head.
    """
    return HEADS[spec.kind](spec, fine_channels, channels, num_classes)


def conv_bn_relu(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    """Dilated 3x3 convolution, BatchNorm, ReLU; the size stays."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
