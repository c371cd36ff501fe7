"""A network whose BatchNorm sees the rows of two processes, against the same network with the whole batch in one.

torchrun --nproc-per-node 2 shared_statistics.py OUT.json
"""

import copy
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from domainbridge.models.activation_checkpointing import checkpoint_blocks
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.runtime.sync_batchnorm import synchronize_batchnorm
from domainbridge.runtime.torchrun import joined_processes

ROWS = 4


def passed(network: Segmenter, image: Tensor, precision: str) -> dict[str, Tensor]:
    """Two training passes; logits, gradients, running statistics."""
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(image).logits.float()
        (logits * torch.linspace(-1, 1, logits.shape[-1])).square().mean().backward()
    gradients = {f"gradient {name}": weight.grad for name, weight in network.named_parameters()}
    return {"logits": logits.detach(), **gradients, **dict(network.named_buffers())}


def differences(backbone: str, *, precision: str, checkpointing: bool, average: bool) -> float:
    """The largest difference between one process with all rows and two with half of them."""
    torch.manual_seed(1)
    alone = build_segmenter(ModelSpec(backbone, 16, 3, HeadSpec(channels=16, dilations=(1, 2), dropout=0.0))).train()
    shared = copy.deepcopy(alone)
    synchronize_batchnorm(shared)
    if checkpointing:
        checkpoint_blocks(shared.backbone)
    if average:
        for norm in (part for net in (alone, shared) for part in net.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.momentum = None
    image = torch.rand(ROWS, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    half = slice(dist.get_rank() * ROWS // 2, (dist.get_rank() + 1) * ROWS // 2)
    expected, actual = passed(alone, image, precision), passed(shared, image[half], precision)
    largest = float((actual["logits"] - expected["logits"][half]).abs().max())
    for name in expected:
        value = actual[name]
        if name.startswith("gradient"):
            dist.all_reduce(value)
            value = value / 2  # each process's loss is the mean over half of the rows
        if name != "logits" and value.is_floating_point():
            largest = max(largest, float((value - expected[name]).abs().max()))
        elif name != "logits":
            assert torch.equal(value, expected[name]), name
    return largest


if __name__ == "__main__":
    with joined_processes("cpu") as processes:
        torch.set_num_threads(1)
        result = {
            f"{backbone} {precision} {checkpointing} {average}": differences(
                backbone, precision=precision, checkpointing=checkpointing, average=average
            )
            for backbone in ("resnet18_v1c", "test_efficientnet")
            for precision, checkpointing, average in (
                ("float32", False, False),
                ("float32", True, False),
                ("float32", False, True),
                ("bfloat16", False, False),
            )
        }
        if processes.is_main:
            Path(sys.argv[1]).write_text(json.dumps(result))
