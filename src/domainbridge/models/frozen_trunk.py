"""A frozen trunk: evaluated once per image, for the student and for every teacher with the same trunk."""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from domainbridge.models.backbones.base import Backbone
from domainbridge.models.segmenter import Segmenter

__all__ = ["FrozenFeatures", "freeze_trunk", "frozen_parts", "share_frozen_trunk"]


class FrozenFeatures:
    """Maps of the images that a frozen trunk has seen; an image's maps live as long as the image."""

    def __init__(self) -> None:
        self._maps = WeakTensorKeyDictionary()

    def of(self, image: Tensor, trunk: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The maps of an image: those that are there, or new ones."""
        device = image.device.type
        state = (image._version, torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device))
        kept = self._maps.get(image)  # type: ignore[no-untyped-call]
        if kept is None or kept[0] != state:
            kept = (state, trunk(image))
            self._maps[image] = kept
        maps: tuple[Tensor, ...] = kept[1]
        return maps


def freeze_trunk(network: Segmenter) -> None:
    """From now on the trunk does not train and stays in evaluation mode: its maps are a function of the image."""
    network.backbone.requires_grad_(False)
    network.trunk_frozen = True
    network.backbone.eval()


def frozen_parts(network: nn.Module) -> list[nn.Module | nn.Parameter]:
    """What a copy of the network that is to be averaged with the network need not copy: weights that do not train, and
    a frozen trunk with its statistics.
    """
    weights: list[nn.Module | nn.Parameter] = [weight for weight in network.parameters() if not weight.requires_grad]
    return [network.backbone, *weights] if isinstance(network, Segmenter) and network.trunk_frozen else weights


def share_frozen_trunk(student: Segmenter, networks: Sequence[Segmenter]) -> None:
    """Let networks with the student's trunk, weights and statistics, run it once per image together with the student.

    Args:
        student: with a frozen trunk.
        networks: teachers, and the student itself. Those with another trunk stay as they are.
    """
    seen = FrozenFeatures()
    for network in networks:
        same = network.backbone is student.backbone or _equal(network.backbone, student.backbone)
        if same and network.head.needs == student.head.needs:
            network.backbone, network.trunk_frozen, network.seen = student.backbone, True, seen
            network.train(network.training)


def _equal(first: Backbone, second: Backbone) -> bool:
    """Whether two trunks have the same weights, statistics and names, and maps of the same strides."""
    left, right = (dict(chain(part.named_parameters(), part.named_buffers())) for part in (first, second))
    if first.map_strides != second.map_strides or left.keys() != right.keys():  # a stride leaves no trace in weights
        return False
    return all(torch.equal(left[name], right[name]) for name in left)
