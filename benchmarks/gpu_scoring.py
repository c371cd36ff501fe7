"""Images a second of scoring on a GPU, and whether its counts are those of the CPU."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbridge.data.label_spaces import label_space, space_table
from domainbridge.evaluation.confusion import confusion_matrix
from domainbridge.evaluation.evaluate import ScoringRule, compared
from domainbridge.evaluation.inference import images_at_once
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.models.segmenter import Segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.types import Sample

__all__ = ["scoring_rate"]


def scoring_rate(
    network: Segmenter, image_size: tuple[int, int], images: int, runtime: Runtime, precision: str
) -> dict[str, Any]:
    """Images a second of scoring in batches, against the network's passes alone.

    Args:
        network: on the device.
        image_size: (height, width).
        images: how many are scored, at least.
        runtime: the device.
        precision: of the forward passes.
    """
    network.eval()
    rule, classes = InferenceRule(precision=precision), network.head.classifier.out_channels
    _check_counts(image_size, classes, runtime.device)
    count = images_at_once(*image_size, rule, runtime.device)
    space = label_space("numbers", [str(number) for number in range(classes)])
    scored = ScoringRule(space, space_table(space, space), inference=rule)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*image_size, 3), np.uint8)
    samples = [Sample(image, generator.integers(0, classes, image_size, np.uint8), "generated")] * count
    tensor = torch.rand(count, 3, *image_size, device=runtime.device)

    def rate(work: Callable[[], object]) -> float:
        work()
        began, rounds = time.perf_counter(), -(-images // count)
        for _ in range(rounds):
            work()
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return count * rounds / (time.perf_counter() - began)

    def passes() -> Tensor:
        with torch.no_grad(), runtime.autocast(precision):
            return network(tensor).logits

    whole = rate(lambda: list(compared(network, samples, scored, runtime.device)))
    return {"images_per_second": whole, "network_alone": rate(passes), "images_at_once": count}


def _check_counts(size: tuple[int, int], classes: int, device: torch.device) -> None:
    """Counting differs between CPU and GPU; the counts must not."""
    values = torch.randint(0, classes + 1, size, generator=torch.Generator().manual_seed(0))
    counts = [confusion_matrix(values.to(place), values.flip(1).to(place), classes).cpu() for place in (device, "cpu")]
    assert torch.equal(*counts), "the confusion matrix differs from that of the CPU"
