"""What a backbone is: feature maps from stride 4 to the output stride; families of backbones by name."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from domainbridge.models.backbones.maps import maps_of
from domainbridge.models.backbones.padding import Padding
from domainbridge.models.backbones.traceable import TraceablePadding
from domainbridge.models.timm_weights import TimmBuild
from domainbridge.registry import Registry

__all__ = ["FAMILIES", "Backbone", "BackboneFamily", "build_backbone", "normalization_of", "register_backbones"]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]

_FALLBACK = "timm"


class Backbone(nn.Module):
    """A feature extractor with a fine map at stride 4, a deepest one at the output stride, and maps between them.

    Attributes:
        body: the extractor; its parameters are named as its library names them.
        map_channels: of all maps, the finest first.
        map_strides: pixels per cell of each; empty where nobody has said them.
        padding: to sizes that the extractor takes.
        timm_build: how timm made the extractor, so that files under timm's names can be read; None for others.
    """

    def __init__(self, body: nn.Module, *channels: int, strides: Sequence[int] = (), any_grid: bool = True) -> None:
        """Two maps at least.

        Args:
            body: (batch, 3, height, width) to a sequence of maps.
            channels: of each map.
            strides: of each map.
            any_grid: whether multiples of 32 pixels suit the extractor without a trial.
        """
        super().__init__()
        self.body = body
        self.map_channels = channels
        self.map_strides = tuple(strides)
        self.padding: Padding | TraceablePadding = Padding(self.map_strides, any_grid=any_grid)
        self.timm_build: TimmBuild | None = None

    @property
    def fine_channels(self) -> int:
        """Of the fine map."""
        return self.map_channels[0]

    @property
    def channels(self) -> int:
        """Of the deepest map."""
        return self.map_channels[-1]

    def forward(self, image: Tensor, *, pyramid: bool = False) -> tuple[Tensor, ...]:
        """(batch, 3, height, width) to two maps: of a fourth, and of 1 / output stride of that size, rounded up.

        Images are padded if the extractor does not take their size; the maps are those of the image alone.

        Args:
            image: float32, normalized.
            pyramid: all maps instead, at ``map_strides``.
        """
        height, width = image.shape[-2:]
        larger = self.padding(self.body, image)
        maps = maps_of(self.body, larger)
        if not pyramid:
            maps = maps[0], maps[-1]
        if larger is image:
            return maps
        return self.padding.cropped(maps, larger, (height, width))


class BackboneFamily(Protocol):
    """Backbones of one kind, found by their names."""

    def matches(self, name: str) -> bool:
        """Whether a name of the recipe's ``model.backbone`` means one of them."""
        ...

    def build(self, name: str, output_stride: int) -> Backbone:
        """A backbone with random weights, drawn from torch's global generator.

        Raises:
            ModelError: unknown, or without a feature map at that stride.
        """
        ...

    def normalization(self, name: str) -> Normalization:
        """(mean, std) per RGB channel in [0, 1] that the ImageNet weights expect."""
        ...


FAMILIES: Registry[BackboneFamily] = Registry(
    "model.backbone", "domainbridge.models.backbones", "domainbridge.backbones"
)


def register_backbones(name: str, family: BackboneFamily) -> None:
    """Add a family; its backbones are known by ``family.matches``."""
    FAMILIES.register(name)(family)


def build_backbone(name: str, output_stride: int) -> Backbone:
    """A backbone with random weights, by name.

    Args:
        name: ``resnet{18,34,50,101,152}_v1c``, or a timm model with feature maps (docs/backbones.md).
        output_stride: 8, 16 or 32. Deeper stages of a convolutional network are dilated instead of strided; the maps of
            a plain ViT are interpolated; other transformers have one output stride, 32.

    Raises:
        ModelError: the name is unknown, or the model gives no feature map at that stride.
    """
    return _family_of(name).build(name, output_stride)


def normalization_of(name: str) -> Normalization:
    """(mean, std) per RGB channel in [0, 1] that a backbone's ImageNet weights expect."""
    return _family_of(name).normalization(name)


def _family_of(name: str) -> BackboneFamily:
    special = [FAMILIES[family] for family in FAMILIES.names() if family != _FALLBACK]
    return next((family for family in special if family.matches(name)), FAMILIES[_FALLBACK])
