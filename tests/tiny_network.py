"""A tiny network and a batch for the objectives: three classes, eight channels, 32x32 pixels."""

import torch

from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.types import Batch

CLASSES, CHANNELS = 3, 8


def network() -> Segmenter:
    torch.manual_seed(2)
    head = HeadSpec("deeplabv2", CHANNELS, (1, 2), 0.0, 4)
    return build_segmenter(ModelSpec("test_efficientnet", 16, CLASSES, head)).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 3, 32, 32, generator=generator)
    return Batch(images[0], torch.randint(0, CLASSES, (2, 32, 32), generator=generator), images[1])
