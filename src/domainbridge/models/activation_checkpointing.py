"""Activation checkpointing: a backbone keeps the inputs of its blocks and computes the rest again when going backward.

Sublinear memory for one more forward pass (Chen et al., arXiv 1604.06174); losses, gradients and running statistics are
the same numbers.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import Backbone

__all__ = ["blocks_of", "checkpoint_blocks"]

_LAYERS = 2
"""A block has at least as many layers with a matrix; the members of a stem's or a shortcut's sequence have one each."""


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
    """The residual blocks.

    Of sequences: the outermost members that are no sequences and hold several convolutions or linear layers. Of lists,
    whose members a transformer calls one by one: the innermost ones.
    """
    blocks: list[nn.Module] = []

    def search(module: nn.Module) -> None:
        for child in module.children():
            if _is_block(module, child):
                blocks.append(child)
            else:
                search(child)

    search(backbone.body)
    return blocks


def _is_block(parent: nn.Module, child: nn.Module) -> bool:
    if isinstance(child, nn.Sequential | nn.ModuleList) or not isinstance(parent, nn.Sequential | nn.ModuleList):
        return False
    if sum(isinstance(part, nn.Conv2d | nn.Linear) for part in child.modules()) < _LAYERS:
        return False
    if isinstance(parent, nn.Sequential):
        return True
    return not any(_is_block(part, inner) for part in child.modules() for inner in part.children())


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    if any(isinstance(each, list) for each in (*inputs, *named.values())):
        return forward(*inputs, **named)  # HRNet's modules take lists and change their members in place
    again = partial(_statistics_kept, block)
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again()), **named
    )


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
