"""Scoring a network; images per second, and memory over 10, 100 and 1,000 images."""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import CLASSES
from benchmarks.measure import interleaved, peak_bytes
from benchmarks.reference_implementation.evaluation import mean_iou
from benchmarks.report import Answer, answer
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.evaluation.evaluate import ScoringRule, score
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.types import Sample

__all__ = ["scoring"]

_LENGTHS = (10, 100, 1000)
_RULE = ScoringRule(BUILT_IN["cityscapes19"], np.arange(256, dtype=np.uint8))


class _Images:
    """As many samples as wanted, of a few images kept in memory: decoding is not the benchmark here."""

    def __init__(self, count: int, height: int, width: int) -> None:
        self.count, self.size = count, (height, width)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image, label = _image(index % 4, *self.size)
        return Sample(image, label, str(index))

    def load_label(self, index: int) -> NDArray[np.uint8]:
        label = self[index].label
        assert label is not None
        return label


@lru_cache
def _image(number: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    generator = np.random.default_rng(number)
    label = generator.integers(0, CLASSES, (height // 32, width // 32), np.uint8).repeat(64, 0).repeat(64, 1)
    return generator.integers(0, 256, (height, width, 3), np.uint8), label


def scoring(rounds: int = 5) -> Answer:
    """Four images of 1024x512 with labels of 2048x1024, by a small network; the floor is its forward pass."""
    network, runtime = _network(), Runtime(torch.device("cpu"), 0)
    images = _Images(4, 512, 1024)
    tensors = [torch.from_numpy(images[n].image.transpose(2, 0, 1).copy())[None].float() / 255 for n in range(4)]

    def floor() -> None:
        with torch.inference_mode():
            for tensor in tensors:
                network(tensor)

    figures = interleaved(
        {
            "ours": lambda: score(network, images, _RULE, runtime),
            "reference_implementation": lambda: mean_iou(network, (images[n] for n in range(len(images))), CLASSES),
            "floor": floor,
        },
        rounds=rounds,
    )
    ours = score(network, images, _RULE, runtime).miou
    return answer(
        figures,
        images=len(images),
        images_per_second_and_core={name: round(len(images) / value.cpu_seconds, 2) for name, value in figures.items()},
        miou_difference=abs((ours or 0) - mean_iou(network, (images[n] for n in range(len(images))), CLASSES)),
        peak_bytes_by_number_of_images=_memory(network, runtime),
    )


def _memory(network: Segmenter, runtime: Runtime) -> dict[str, dict[int, int]]:
    """Of images of 128x64 with labels of 256x128: a thousand full ones would take 16 GB otherwise."""
    sets = {length: _Images(length, 64, 128) for length in _LENGTHS}
    score(network, sets[10], _RULE, runtime)
    return {
        "ours": {length: peak_bytes(lambda s=some: score(network, s, _RULE, runtime)) for length, some in sets.items()},
        "reference_implementation": {
            length: peak_bytes(lambda s=some: mean_iou(network, (s[n] for n in range(len(s))), CLASSES))
            for length, some in sets.items()
        },
    }


def _network() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(ModelSpec("resnet18_v1c", 32, CLASSES)).eval().to(memory_format=torch.channels_last)
