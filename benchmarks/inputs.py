"""What the benchmarks about steps have in common: the published network at a crop size, and a plausible batch."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.models.segmenter import ModelSpec, Segmentation, Segmenter, build_segmenter
from domainbridge.training.optimizer import build_optimizer
from domainbridge.types import Batch

__all__ = ["CHANNELS", "CLASSES", "bank", "batch", "fused", "plain_optimizer", "published_network", "teacher_output"]

CLASSES, CHANNELS = 19, 256


def published_network(seed: int = 0) -> Segmenter:
    """ResNet-101 v1c at output stride 8 with the published head, random weights, as a stage places it."""
    torch.manual_seed(seed)
    network = build_segmenter(ModelSpec("resnet101_v1c", 8, CLASSES))
    return network.to(memory_format=torch.channels_last)


def batch(size: int, rows: int = 1) -> Batch:
    """Smooth colored noise and a label of blobs."""
    torch.manual_seed(1)
    label = _blobs(rows, size)
    images = [F.interpolate(torch.rand(rows, 3, 32, 32), (size, size), mode="bicubic").clamp(0, 1) for _ in range(2)]
    return Batch(images[0], label, images[1])


def teacher_output(rows: int, cells: int, seed: int) -> tuple[Segmentation, PrototypeBank]:
    """A teacher's logits and features, (rows, channels, cells, cells), near its prototypes."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(CLASSES, CHANNELS, generator=generator)
    label = _blobs(rows, cells)
    noise = torch.randn(rows, CHANNELS, cells, cells, generator=generator)
    features = (prototypes[label].permute(0, 3, 1, 2) + 0.5 * noise).relu()
    logits = 3.0 * F.one_hot(label, CLASSES).permute(0, 3, 1, 2)
    logits = logits + torch.randn(rows, CLASSES, cells, cells, generator=generator)
    return Segmentation(logits.contiguous(), features.contiguous()), bank(prototypes)


def bank(prototypes: Tensor) -> PrototypeBank:
    """Every class present."""
    return PrototypeBank(prototypes, torch.ones(len(prototypes)))


def fused(student: Segmenter) -> torch.optim.Optimizer:
    """Our optimizer at the published rates, held still: rounds must do the same work on the same weights."""
    return build_optimizer(student, 1e-12, 10, 0.0)


def plain_optimizer(student: Segmenter) -> torch.optim.Optimizer:
    """The same updates, parameter by parameter."""
    return torch.optim.AdamW(student.parameters(), lr=1e-12, weight_decay=0.0, foreach=False, fused=False)


def twin(network: Segmenter) -> Segmenter:
    """A copy that is not trained."""
    return copy.deepcopy(network).requires_grad_(False)


def _blobs(rows: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(rows, CLASSES, 8, 8, generator=generator)
    return F.interpolate(scores, (size, size), mode="bilinear").argmax(1)
