"""A prototype pass over target crops with ResNet-101."""

import torch

from benchmarks.inputs import CHANNELS, CLASSES, batch, published_network, teacher_output
from benchmarks.measure import interleaved
from benchmarks.reference_implementation.prototypes import Centroids
from benchmarks.report import Answer, answer
from domainbridge.methods.prototypes import empty_bank, image_means, means_of, running_mean

__all__ = ["beyond_the_network", "whole_pass"]

_CPU = torch.device("cpu")


def beyond_the_network(size: int = 512, rounds: int = 7) -> Answer:
    """Class means and their running mean alone, from the outputs of a network of ResNet-101's shape."""
    output, _ = teacher_output(1, size // 8, 1)

    def ours() -> torch.Tensor:
        means, seen = means_of(output, (size, size), CLASSES, 10)
        return running_mean(empty_bank(CLASSES, CHANNELS, _CPU), means, seen, 3000).vectors

    def published() -> torch.Tensor:
        centroids = Centroids(CLASSES, CHANNELS)
        centroids.add(output.logits, output.features, (size, size))
        return centroids.vectors

    with torch.no_grad():
        plain = published()
        difference = ((ours() - plain).abs().max() / plain.abs().max()).item()
        figures = interleaved({"ours": ours, "reference_implementation": published}, rounds=rounds)
    return answer(figures, crop=size, batch=1, largest_relative_difference=difference)


def whole_pass(size: int = 512, rounds: int = 5) -> Answer:
    """The same with the network; the floor is its forward pass over the same crop."""
    network = published_network().eval()
    image = batch(size).target_image
    bank = empty_bank(CLASSES, CHANNELS, _CPU)
    centroids = Centroids(CLASSES, CHANNELS)

    def published() -> None:
        with torch.no_grad():
            centroids.add(*network(image), (size, size))

    def floor() -> None:
        with torch.inference_mode():
            network(image)

    ways = {
        "ours": lambda: running_mean(bank, *image_means(network, image, CLASSES, 10), 3000),
        "reference_implementation": published,
        "floor": floor,
    }
    return answer(interleaved(ways, rounds=rounds), crop=size, batch=1, network="resnet101_v1c, output stride 8")
