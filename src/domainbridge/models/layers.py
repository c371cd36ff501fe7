"""The layers of a trunk: its residual blocks in order, and the number of the layer that a weight belongs to."""

from timm.layers.drop import DropPath
from torch import nn

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone

__all__ = ["layer_numbers", "residual_blocks", "residual_branches"]

_BRANCH = "drop_path"
"""timm's blocks name the places for stochastic depth ``drop_path``, ``drop_path1``, ``drop_path2``."""


def residual_branches(module: nn.Module) -> list[str]:
    """Names of a module's places for stochastic depth, one after each residual branch; free ones too."""
    names = [name for name in (*module._modules, *vars(module)) if name.startswith(_BRANCH)]
    places = ((name, getattr(module, name)) for name in names)
    return [name for name, place in places if place is None or isinstance(place, nn.Identity | DropPath)]


def residual_blocks(trunk: nn.Module) -> dict[str, list[nn.Module]]:
    """The residual blocks in order: name of a block -> its modules with residual branches.

    A block is the innermost member of a sequence around such a module, as a MaxViT block holds three of
    them; without a sequence the module itself.
    """
    modules = dict(trunk.named_modules())
    blocks: dict[str, list[nn.Module]] = {}
    for name, module in modules.items():
        if residual_branches(module):
            around = [".".join(name.split(".")[:depth]) for depth in range(name.count(".") + 1, 0, -1)]
            members = (
                each for each in around if isinstance(modules[each.rpartition(".")[0]], nn.Sequential | nn.ModuleList)
            )
            blocks.setdefault(next(members, name), []).append(module)
    return blocks


def layer_numbers(backbone: Backbone) -> dict[str, int]:
    """Name of each parameter -> its layer: 0 for the stem, then a number per residual block.

    What lies between two blocks (a reduction, a norm) belongs to the later one, what follows the last block to the last
    one. For plain ViTs these are the layers of BEiT (Bao et al., arXiv 2106.08254) and of timm's ``group_matcher``.

    Raises:
        ModelError: the trunk has no residual blocks that are known as such, e.g. a VGG.
    """
    blocks = list(residual_blocks(backbone))
    if "" in blocks or not blocks:
        raise ModelError("training.layer_decay: this backbone has no residual blocks; leave the key out")
    numbers: dict[str, int] = {}
    waiting: list[str] = []
    last = 0
    for name, _ in backbone.named_parameters():
        number = next((n for n, block in enumerate(blocks, 1) if name.startswith(f"{block}.")), None)
        if number is None:
            waiting.append(name)
            continue
        numbers |= dict.fromkeys(waiting, number if last else 0)
        waiting, last = [], number
        numbers[name] = number
    return numbers | dict.fromkeys(waiting, last)
