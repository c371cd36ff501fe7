"""What a backbone is: two feature maps, at stride 4 and at the output stride; families of backbones by name."""

from typing import Protocol

from torch import Tensor, nn

from domainbridge.models.backbones.padding import Padding
from domainbridge.registry import Registry

__all__ = ["FAMILIES", "Backbone", "BackboneFamily", "build_backbone", "normalization_of", "register_backbones"]

Normalization = tuple[tuple[float, ...], tuple[float, ...]]

_FALLBACK = "timm"


class Backbone(nn.Module):
    """A feature extractor that returns two maps: the fine one at stride 4, and the deepest.

    Attributes:
        body: the extractor; its parameters are named as its library names them.
        fine_channels: of the fine map.
        channels: of the deepest map.
    """

    def __init__(self, body: nn.Module, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.body = body
        self.fine_channels = fine_channels
        self.channels = channels
        self.padding = Padding()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 3, height, width) to maps of a fourth, and of 1 / output stride of that size, rounded up.

        Images are padded if the extractor does not take their size; the maps are those of the image alone.
        """
        height, width = image.shape[-2:]
        larger = self.padding(self.body, image)
        fine, deepest = self.body(larger)
        if larger is image:
            return fine, deepest
        return _cropped(fine, larger, (height, width)), _cropped(deepest, larger, (height, width))


def _cropped(maps: Tensor, padded: Tensor, size: tuple[int, int]) -> Tensor:
    """Without the cells that see the padding alone."""
    down, right = (-(-padded.shape[axis] // maps.shape[axis]) for axis in (-2, -1))
    return maps[..., : -(-size[0] // down), : -(-size[1] // right)]


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
        name: ``resnet{18,34,50,101,152}_v1c``, or a convolutional timm model with feature maps.
        output_stride: 8, 16 or 32: deeper stages are dilated instead of strided.

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
