"""BatchNorm statistics taken again over other images."""

import pytest
import torch
from torch import nn

from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter


@pytest.fixture
def network() -> Segmenter:
    torch.manual_seed(0)
    spec = ModelSpec("resnet18_v1c", 32, 4, HeadSpec(channels=16, dilations=(1, 2), dropout=0.5))
    network = build_segmenter(spec).train()
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))  # statistics of other images
    return network


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.2 + 0.3 * torch.rand(2, 3, 64, 64, generator=generator) for _ in range(3)]


def first_norm(network: Segmenter) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
    return convolution, next(part for part in network.modules() if isinstance(part, nn.BatchNorm2d))


def test_they_are_the_averages_over_the_batches(network: Segmenter) -> None:
    recompute_bn_stats(network, iter(batches()))
    convolution, norm = first_norm(network)
    with torch.no_grad():
        outputs = [convolution((image - network.mean) / network.std) for image in batches()]
    mean = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_nothing_else_changes_and_no_chance_is_involved(network: Segmenter) -> None:
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recompute_bn_stats(network, batches())
    once = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = {name.rpartition(".")[2] for name in weights if not weights[name].equal(once[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert first_norm(network)[1].momentum == 0.1
    assert not any(part.training for part in network.modules())
    recompute_bn_stats(network, batches())
    assert all(tensor.equal(once[name]) for name, tensor in network.state_dict().items())


def test_no_batch_changes_nothing(network: Segmenter) -> None:
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recompute_bn_stats(network, [])
    assert all(tensor.equal(weights[name]) for name, tensor in network.state_dict().items())


def test_a_failing_loader_leaves_the_momentum(network: Segmenter) -> None:
    def failing() -> object:
        yield batches()[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        recompute_bn_stats(network, failing())  # type: ignore[arg-type]
    assert first_norm(network)[1].momentum == 0.1
