"""ResNet with the deep stem, "v1c", as the authors use (docs/method.md, section 6)."""

import re
from typing import Any

from timm.models.resnet import BasicBlock

from domainbridge.models.backbones.base import Backbone, Normalization, register_backbones
from domainbridge.models.backbones.timm_features import IMAGENET, extractor

__all__ = ["resnet_v1c"]

_NAME = re.compile(r"^resnet(18|34|50|101|152)_v1c$")


class ResNetV1c:
    """``resnet{18,34,50,101,152}_v1c``."""

    def matches(self, name: str) -> bool:
        """Whether it is one of these names."""
        return _NAME.match(name) is not None

    def build(self, name: str, output_stride: int) -> Backbone:
        """See :func:`resnet_v1c`."""
        match = _NAME.match(name)
        assert match is not None
        return resnet_v1c(int(match[1]), output_stride)

    def normalization(self, name: str) -> Normalization:
        """ImageNet's usual one."""
        return IMAGENET


def resnet_v1c(depth: int, output_stride: int, **sizes: Any) -> Backbone:
    """ResNet with the deep stem of three 3x3 convolutions.

    The first block of a dilated stage has half the stage's dilation. In a basic block only the first convolution
    is dilated, as in the authors' library; timm would dilate both.

    Args:
        depth: 18, 34, 50, 101 or 152.
        output_stride: 8, 16 or 32.
        sizes: ``stem_width`` (32) and ``channels`` (64, 128, 256, 512), for smaller networks.
    """
    backbone = extractor(f"resnet{depth}", output_stride, stem_type="deep", **{"stem_width": 32, **sizes})
    backbone.timm_build = None  # files of these weights have the authors' names, which timm does not know
    for module in backbone.modules():
        if isinstance(module, BasicBlock):
            module.conv2.dilation, module.conv2.padding = (1, 1), (1, 1)
    return backbone


register_backbones("resnet_v1c", ResNetV1c())
