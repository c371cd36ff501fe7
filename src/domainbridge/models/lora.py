"""Low-rank adaptation, LoRA (Hu et al., arXiv 2106.09685): W + alpha / rank * B A in the place of W, and W is frozen.

The sum is a parametrization of the layer's weight (``torch.nn.utils.parametrize``): whatever reads ``layer.weight``
sees the sum, also those blocks that do not call the layer. Merging writes the sum into the weight, so a merged network
gives the same numbers. ``peft`` would bring a second library of models along.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from domainbridge.errors import ModelError

__all__ = ["LowRank", "add_lora", "lora_layers", "merge_lora"]


class LowRank(nn.Module):
    """The learned difference of one weight.

    Attributes:
        down: A, (rank, inputs): uniform in +-1 / sqrt(inputs), as the authors' code draws it.
        up: B, (outputs, rank): zero, so training starts from the given network.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        kept = min(rank, outputs, inputs)
        bound = 1 / math.sqrt(inputs)
        down = torch.empty(kept, inputs, device="cpu").uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, kept, device=weight.device))
        self.factor = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """W + alpha / rank * B A, in float32 also under autocast: the merged weight is the trained one."""
        kind = weight.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return weight + self.factor * (self.up @ self.down).view_as(weight)


def lora_layers(trunk: nn.Module, targets: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Linear layers and 1x1 convolutions by name.

    Args:
        trunk: with the layers.
        targets: last parts of the names that are wanted, e.g. ``qkv``; empty: all.

    Raises:
        ModelError: no layer has one of these names.
    """
    layers = {name: module for name, module in trunk.named_modules() if _is_matrix(module)}
    known = sorted({name.rpartition(".")[2] for name in layers})
    missing = [target for target in targets if target not in known]
    if missing or not layers:
        raise ModelError(
            f"training.lora_targets: no linear layer or 1x1 convolution of this backbone is called "
            f"{', '.join(missing) or 'anything'}; there are {', '.join(known) or 'none'}"
        )
    return {name: layer for name, layer in layers.items() if not targets or name.rpartition(".")[2] in targets}


def add_lora(trunk: nn.Module, rank: int, alpha: float, targets: Sequence[str], generator: torch.Generator) -> None:
    """Freeze a trunk and give its layers a low-rank difference, which trains; changed in place.

    Args:
        trunk: its weights are kept and frozen.
        rank: of the difference; a layer with fewer inputs or outputs has that many.
        alpha: factor of the difference times ``rank``.
        targets: see :func:`lora_layers`.
        generator: on the CPU, for A.

    Raises:
        ModelError: no layer has one of these names.
    """
    trunk.requires_grad_(False)
    for layer in lora_layers(trunk, targets).values():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        parametrize.register_parametrization(layer, "weight", LowRank(weight, rank, alpha, generator))


def merge_lora(network: nn.Module) -> None:
    """Write the low-rank differences into the weights: the network is a plain one again, with the same numbers."""
    for layer in list(network.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrizations = layer.parametrizations
            assert isinstance(parametrizations, nn.ModuleDict)
            if isinstance(parametrizations["weight"][0], LowRank):  # type: ignore[index]
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _is_matrix(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)
