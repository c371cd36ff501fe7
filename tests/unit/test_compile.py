"""torch.compile in a training step: no graph breaks, and nothing is compiled again from step to step."""

from collections.abc import Callable

import pytest
import torch
from test_no_waiting import OBJECTIVES
from torch._dynamo.utils import counters

from domainbridge.methods.base import Objective
from domainbridge.models.backbones.padding import leave_out_of_compilation
from domainbridge.runtime.device import Runtime
from domainbridge.training.loop import TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer
from domainbridge.types import Batch

STEPS = 20


@pytest.mark.parametrize(("name", "graphs"), [("source-only", 1), ("class path", 2), ("hard", 2)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_have_one_graph_with_gradients_and_one_without(name: str, graphs: int, precision: str) -> None:
    make: Callable[[torch.device], Objective] = OBJECTIVES[name]
    torch._dynamo.reset()
    counters.clear()
    objective = make(torch.device("cpu"))
    student = objective.student.train()
    leave_out_of_compilation()
    for network in objective.networks:
        network.compile(backend="aot_eager")
    image, label = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2, 32, 32, dtype=torch.uint8)
    config, ignored = TrainConfig("stage", 0, 0, Schedule(STEPS), precision), {"report": print, "checkpoint": print}
    batches = iter([Batch(image, label, image)] * STEPS)
    assert fit(
        objective, build_optimizer(student, 1e-4, 10, 0.01), batches, config, Runtime(torch.device("cpu"), 0), **ignored
    )  # type: ignore[arg-type]
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
