"""Activation checkpointing: a backbone keeps the inputs of its blocks and computes the rest again when going backward.

Sublinear memory for one more forward pass (Chen et al., arXiv 1604.06174); losses, gradients and running statistics are
the same numbers.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone

__all__ = ["blocks_of", "checkpoint_blocks"]

_CONVOLUTIONS = 2
"""A block has at least as many; the members of a stem's or a shortcut's sequence are layers of one each."""


def checkpoint_blocks(backbone: Backbone) -> None:
    """From now on every block is computed again in the backward pass. The names of the weights stay.

    Raises:
        ModelError: the backbone has no residual blocks, e.g. a VGG.
    """
    blocks = blocks_of(backbone)
    if not blocks:
        raise ModelError("training.activation_checkpointing: this backbone has no residual blocks; leave the key out")
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)


def blocks_of(backbone: Backbone) -> list[nn.Module]:
    """The residual blocks: the outermost members of sequences that are no sequences and hold several convolutions."""
    blocks: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        for child in module.children():
            member = isinstance(module, nn.Sequential) and not isinstance(child, nn.Sequential)
            if member and sum(isinstance(part, nn.Conv2d) for part in child.modules()) >= _CONVOLUTIONS:
                blocks.append(child)
            else:
                search(child)

    search(backbone.body)
    return blocks


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if not all(isinstance(tensor, Tensor) for tensor in inputs):
        return forward(*inputs)  # HRNet's modules take lists and change their members in place
    again = partial(_statistics_kept, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again()))


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second time, batch statistics normalize as before but weigh nothing in the running ones, nor count."""
    norms = [part for part in block.modules() if isinstance(part, _NormBase) and part.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    spare = torch.zeros((), dtype=torch.long, device=norms[0].weight.device) if norms else None
    for norm in norms:
        # Not None: a layer that averages over all batches divides by the counter.
        norm.momentum, norm.num_batches_tracked = 0.0, spare
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
