"""The estimate of a step's memory against what torch's allocator counts in real steps on a CPU."""

import copy
from typing import cast

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from domainbridge.build.fine_tuning import optimizer_of, prepare_trunk
from domainbridge.build.networks import build_objective, initial_student
from domainbridge.build.recipe import parse_recipe
from domainbridge.methods.base import StageInputs, TrainingStage
from domainbridge.run.graph import stage_graph
from domainbridge.runtime.device import resolve_runtime
from domainbridge.tools.costs import costs_of
from domainbridge.training.loop import TrainConfig, fit
from domainbridge.training.optimizer import Schedule
from domainbridge.types import Batch
from tiny_domain import RECIPE

MODEL = {"backbone": "convnext_atto", "output_stride": 16, "head": {"channels": 32}}


@pytest.mark.parametrize("trunk", ["whole", "lora", "frozen"])
def test_memory_of_a_step_is_as_estimated_within_30_percent(trunk: str) -> None:
    """Two steps of a path, from before the network is built; a second step has the optimizer's moments too."""
    training = {"steps": 2, "batch_size": 2, "trunk": trunk}
    tree = copy.deepcopy(RECIPE) | {"model": MODEL, "crop": {"width": 96, "height": 96}, "training": training}
    recipe, runtime = parse_recipe(tree), resolve_runtime("cpu", 1)
    node = next(node for node in stage_graph(recipe, None) if node.name == "r1-cut")
    stage = node.spec
    assert isinstance(stage, TrainingStage)
    assert node.training is not None
    image = torch.zeros(2, 3, 96, 96, dtype=torch.uint8)
    batch = Batch(image, image[:, 0], image)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        student = runtime.place(initial_student(recipe, "s").train(), channels_last=True)
        prepare_trunk(student, node.training, 0, "s")
        objective = build_objective(recipe, stage, student, cast(StageInputs, None))
        fit(
            objective,
            optimizer_of(student, node.training),
            iter(lambda: batch, None),
            TrainConfig("s", 0, 0, Schedule(2), log_every=1),
            runtime,
            report=lambda _: None,
            checkpoint=lambda _: None,
        )
    now = peak = 0
    assert profiled.profiler is not None
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert costs_of(recipe, node.training).memory(stage) == pytest.approx(peak, rel=0.3)
