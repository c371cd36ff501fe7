"""Stochastic depth, also called drop path (Huang et al., arXiv 1603.09382), in a trunk that is built already.

A sample skips a residual branch at random. The layers draw from torch's global generator, which the training loop
seeds in every step, as for dropout.
"""

from timm.layers.drop import DropPath
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone
from domainbridge.models.layers import residual_blocks, residual_branches

__all__ = ["dropout_off", "set_drop_path"]


def set_drop_path(backbone: Backbone, rate: float) -> None:
    """Give each residual block its probability to be skipped: from 0 in the first block to ``rate`` in the last one.

    The names of the weights stay.

    Raises:
        ModelError: the trunk has no residual blocks that are known as such.
    """
    blocks = residual_blocks(backbone)
    if not blocks:
        raise ModelError("training.drop_path: this backbone has no residual branches to drop; leave the key out")
    for number, owners in enumerate(blocks.values()):
        share = rate * number / max(len(blocks) - 1, 1)
        for owner in owners:
            for name in residual_branches(owner):
                setattr(owner, name, DropPath(share) if share else nn.Identity())


def dropout_off(network: nn.Module) -> None:
    """Put dropout and stochastic depth into evaluation mode; other layers stay as they are."""
    for module in network.modules():
        if isinstance(module, _DropoutNd | DropPath):
            module.eval()
