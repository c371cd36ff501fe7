"""AdaBN: BatchNorm statistics of a trained network, computed again on target images (Li et al., arXiv 1603.04779)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from domainbridge.models.segmenter import Segmenter

__all__ = ["batchnorm_layers", "recompute_bn_stats"]


def batchnorm_layers(network: nn.Module) -> list[_BatchNorm]:
    """The layers of a network whose running statistics can be replaced; layers with frozen ones are left out."""
    return [part for part in network.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]


@torch.no_grad()
def recompute_bn_stats(network: Segmenter, batches: Iterable[Tensor]) -> None:
    """Replace the running means and variances of all BatchNorm layers by their averages over ``batches``.

    AdaBN does so on a network trained on the source alone; here any network may be given. Every batch is normalized
    with its own statistics, as in training; dropout is off. The network is left in evaluation mode, and without a batch
    as it was.

    Args:
        network: changed in place.
        batches: images, float32 (batch, 3, height, width) in [0, 1], on the network's device.
    """
    network.eval()
    norms = batchnorm_layers(network)
    momenta = [norm.momentum for norm in norms]
    try:
        for number, image in enumerate(batches):
            for norm in norms if number == 0 else ():
                norm.reset_running_stats()
                norm.momentum = None  # the plain average over all batches
                norm.train()
            network.forward(image)  # not the compiled one, which would be compiled again for this mode
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
