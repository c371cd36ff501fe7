"""Plain vision transformers: the maps of four blocks, all at the patch's stride, as a light pyramid.

DINOv2, DINOv3, EVA-02, SigLIP, CLIP, DeiT and others keep one resolution. Four evenly spaced blocks are read, as
DINOv2's segmentation heads do (arXiv 2304.07193). A map goes to another stride by interpolation, which has no weights.
"""

from typing import Any, cast

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone
from domainbridge.models.backbones.maps import at_stride, cells
from domainbridge.models.timm_weights import TimmBuild

__all__ = ["BlockMaps", "PlainViT", "plain_vit"]

_MAPS = 4
_FINE = 4
"""Stride of the fine map."""


class BlockMaps(nn.Module):
    """The maps of some blocks after the transformer's last norm, (batch, channels, height / patch, width / patch) each.

    Class and register tokens are left out.
    """

    def __init__(self, model: nn.Module, blocks: list[int]) -> None:
        super().__init__()
        self.model = model
        self.blocks = blocks

    def forward(self, image: Tensor) -> list[Tensor]:
        """Of an image whose sides the patch divides."""
        maps: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
            image, indices=self.blocks, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return maps


class PlainViT(Backbone):
    """A plain ViT: the fine map comes from the first of four blocks, the deepest from the last block.

    Attributes:
        patch: pixels per side of a patch.
    """

    def __init__(self, body: BlockMaps, patch: int, output_stride: int, channels: int) -> None:
        super().__init__(body, *[channels] * _MAPS, strides=[output_stride] * _MAPS)
        self.patch = patch
        self.output_stride = output_stride

    def forward(self, image: Tensor, *, pyramid: bool = False) -> tuple[Tensor, ...]:
        """As for every backbone; with ``pyramid`` four maps at the output stride.

        The image is padded to whole patches at the bottom and at the right with its mean color. Where the output stride
        is the patch, maps are those of the transformer itself.
        """
        size = (image.shape[-2], image.shape[-1])
        missing = [cells(side, self.patch) * self.patch - side for side in size]
        maps = self.body(F.pad(image, (0, missing[1], 0, missing[0])) if any(missing) else image)
        if pyramid:
            return tuple(at_stride(each, self.patch, self.output_stride, size) for each in maps)
        return at_stride(maps[0], self.patch, _FINE, size), at_stride(maps[-1], self.patch, self.output_stride, size)

    def fix_size(self, size: tuple[int, int]) -> None:
        """Resample the position embeddings once for all, for images of one size; the maps of such images stay.

        Args:
            size: height and width of the images.
        """
        model = self.body.model
        if getattr(model, "dynamic_img_size", False) and hasattr(model, "set_input_size"):
            whole = tuple(cells(side, self.patch) * self.patch for side in size)
            model.set_input_size(img_size=whole)  # type: ignore[operator]


def plain_vit(name: str, output_stride: int, **arguments: Any) -> PlainViT:
    """A timm model whose blocks all have the patch's stride.

    Args:
        name: timm's.
        output_stride: of the deepest map.
        arguments: of the model, such as ``dynamic_img_size`` or ``depth``.

    Raises:
        ModelError: timm gives no maps of its blocks.
    """
    model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    info = cast(list[dict[str, Any]], model.feature_info)
    depth = len(info)
    if depth < _MAPS:
        raise ModelError(f"model.backbone: {name!r} has {depth} blocks; at least {_MAPS} are needed")
    blocks = [depth * part // _MAPS - 1 for part in range(1, _MAPS + 1)]
    try:
        # Without the parts behind the blocks: a weight that no map depends on has no gradient.
        blocks = model.prune_intermediate_layers(blocks, prune_norm=False, prune_head=True)  # type: ignore[operator]
    except (AttributeError, TypeError) as error:
        raise ModelError(f"model.backbone: {name!r} gives no maps of its blocks ({error})") from error
    last = info[-1]
    channels = last.get("num_chs_norm", last["num_chs"])
    backbone = PlainViT(BlockMaps(model, blocks), int(last["reduction"]), output_stride, channels)
    backbone.timm_build = TimmBuild(name, arguments)
    return backbone
