"""BatchNorm over several processes, seen from one of them: collectives per pass, and graphs of torch.compile.

What it computes is compared with one process's BatchNorm in tests/run/test_processes.py.
"""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.utils import counters
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.runtime.sync_batchnorm import synchronize_batchnorm

BACKBONES = ["resnet18_v1c", "test_efficientnet"]


@pytest.fixture(autouse=True)
def two_processes() -> Iterator[None]:
    """This one, and another that only exists by number."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


def network(backbone: str) -> Segmenter:
    model = build_segmenter(ModelSpec(backbone, 16, 3, HeadSpec(channels=16, dilations=(1, 2)))).train()
    synchronize_batchnorm(model)
    return model


class Collectives(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func.namespace == "c10d":
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_one_collective_per_layer_and_direction(backbone: str) -> None:
    model = network(backbone)
    layers = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    with Collectives() as forward:
        loss = model(torch.rand(2, 3, 64, 64)).logits.sum()
    with Collectives() as backward:
        loss.backward()
    assert len(forward.names) == layers
    assert len(backward.names) == layers
    assert set(forward.names + backward.names) == {"c10d.allreduce_.default"}
    with Collectives() as evaluation:
        model.eval()(torch.rand(2, 3, 64, 64))
    assert evaluation.names == []


class SavedMoments(TorchDispatchMode):
    """Whether each BatchNorm's backward pass is given saved moments."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if "batch_norm_backward" in str(func):
            self.given.append(args[5] is not None and args[6] is not None)
        return func(*args, **(kwargs or {}))


def test_the_backward_pass_has_what_a_gpu_asks_for() -> None:
    """CUDA's kernel for channels_last stops without saved moments: "save_mean should always be defined"."""
    model = network("resnet18_v1c").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = model(torch.rand(2, 3, 64, 64)).logits.sum()
    with SavedMoments() as seen:
        loss.backward()
    assert seen.given
    assert all(seen.given)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_compiled_network_is_one_graph_that_is_compiled_once(backbone: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = network(backbone)
    model.compile(backend="aot_eager")
    for _ in range(3):
        model(torch.rand(2, 3, 64, 64)).logits.sum().backward()
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert not counters["recompiles"]
