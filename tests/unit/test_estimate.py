"""Memory and time in a plan."""

import copy
import json
from pathlib import Path

import pytest
import torch

from domainbridge.build.networks import model_spec
from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.models.segmenter import build_segmenter
from domainbridge.ops.losses import cross_entropy
from domainbridge.run.graph import Node, measured_seconds, stage_graph
from domainbridge.run.stage_state import identity
from domainbridge.tools.costs import costs_of
from domainbridge.tools.estimate import device_memory, estimate, memory_notes
from domainbridge.tools.probe import Probe
from domainbridge.tools.stage_loads import stage_loads
from tiny_domain import RECIPE


def stage(name: str, nodes: list[Node]) -> TrainingStage:
    spec = next(node.spec for node in nodes if node.name == name)
    assert isinstance(spec, TrainingStage)
    return spec


def tiny(**training: object) -> Recipe:
    return parse_recipe(copy.deepcopy(RECIPE) | {"training": RECIPE["training"] | training})


def test_costs_follow_the_batch() -> None:
    one, two = (costs_of(recipe, recipe.training) for recipe in (tiny(), tiny(batch_size=4)))
    assert two.operations == 2 * one.operations
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    assert one.parameters == two.parameters
    nodes = stage_graph(tiny(), None)
    baseline, path, distill = (stage(name, nodes) for name in ("source-only", "r1-class", "r1-distill"))
    assert one.step_operations(baseline) == 3 * one.operations
    assert one.step_operations(path) == 7 * one.operations
    assert one.step_operations(distill) == 8 * one.operations
    assert one.memory(distill) - one.memory(path) == 4 * one.parameters
    recipe = tiny(batch_size=4, gradient_accumulation_steps=2)
    parts = costs_of(recipe, recipe.training)
    assert (parts.operations, parts.activations) == (two.operations, one.activations), (
        "as much work, half of the memory"
    )


def test_activations_are_what_autograd_really_keeps() -> None:
    """Counted on a real forward pass, by the memory that the saved tensors' storages have."""
    recipe = tiny()
    student = build_segmenter(model_spec(recipe)).train()
    weights = {weight.data_ptr() for weight in (*student.parameters(), *student.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    image, label = torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        cross_entropy(student(image).logits, label)
    real = sum(storage.nbytes() for storage in kept.values())
    assert costs_of(recipe, recipe.training).activations == pytest.approx(real, rel=0.1)


def test_the_published_network() -> None:
    """47,833,715 parameters (recorded arrays a); its arithmetic at 512x512 is some 400 GFLOP an image."""
    recipe = load_recipe("gta-to-cityscapes")
    costs = costs_of(recipe, recipe.training)
    assert costs.parameters == 47_833_715
    assert 300e9 < costs.operations / recipe.training.batch_size < 500e9
    half = costs_of(recipe, recipe.training.model_copy(update={"precision": "bfloat16"}))
    assert half.activations == costs.activations // 2
    sparing = costs_of(recipe, recipe.training.model_copy(update={"activation_checkpointing": True}))
    assert sparing.activations < costs.activations / 2
    path = stage("r1-cut", stage_graph(recipe, None))
    assert sparing.step_operations(path) == pytest.approx(9 / 7 * costs.step_operations(path), rel=0.05)


def explained(recipe: Recipe, available: int | None = None) -> str:
    return estimate(recipe, stage_graph(recipe, None), available=available).explanation


def test_what_does_not_fit_is_told_with_keys_that_help() -> None:
    recipe = tiny(batch_size=16)
    distill = stage("r1-distill", stage_graph(recipe, None))
    assert "more than this device" not in explained(recipe)
    half = costs_of(recipe, recipe.training.model_copy(update={"precision": "bfloat16"})).memory(distill)
    text = explained(recipe, int(half / 0.89))
    assert "more than this device's" in text
    assert "these fit: training.precision=bfloat16 (" in text
    assert "take a smaller crop or backbone" in explained(recipe, 1)


@pytest.mark.parametrize("backbone", ["regnety_002", "hrnet_w18_small"])
def test_backbones_without_plain_blocks(backbone: str) -> None:
    model = {"backbone": backbone, "output_stride": 32}
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"model": model, "crop": {"width": 128, "height": 128}})
    text = explained(recipe, 2**26)
    assert "more than this device's" in text
    assert ("activation_checkpointing" in text) <= (backbone == "hrnet_w18_small")


def test_parts_too_small_for_batchnorm_are_no_way_to_fit() -> None:
    """Two rows of 1x1 at the head: half of them cannot be normalized."""
    model = {**RECIPE["model"], "output_stride": 32}
    text = explained(parse_recipe(copy.deepcopy(RECIPE) | {"model": model}), 2**20)
    assert "more than this device's" in text
    assert "gradient_accumulation_steps" not in text


def test_a_recipe_whose_parts_are_too_small_for_batchnorm_is_told_so() -> None:
    training = {**RECIPE["training"], "batch_size": 2, "gradient_accumulation_steps": 2}
    recipe = parse_recipe(
        copy.deepcopy(RECIPE) | {"model": {**RECIPE["model"], "output_stride": 32}, "training": training}
    )
    with pytest.raises(RecipeError, match=r"1 rows of .* \(batch_size 2, gradient_accumulation_steps 2\) are too few"):
        explained(recipe)


def test_memory_of_devices() -> None:
    machine = device_memory("cpu")
    assert machine is not None
    assert machine > 2**28
    assert device_memory("cuda:99") is None
    assert device_memory("nonsense") is None
    assert device_memory("meta") is None


def test_a_probe_replaces_both() -> None:
    recipe = tiny()
    probed = {
        "source-only": Probe(0.5, None),
        "self-training": Probe(1.0, None),
        "distillation": Probe(2.0, 3 * 2**30),
    }
    result = estimate(recipe, stage_graph(recipe, None), probed=probed)
    paths = {f"r{number}-{path}": 4.0 for number in (1, 2) for path in ("cut", "class")}
    assert result.seconds == {"source-only": 2.0, "r1-distill": 8.0, "r2-distill": 8.0, **paths}
    assert "3.0 GiB allocated at the peak of the probed steps" in result.explanation


def test_measured_steps_replace_the_assumption(tmp_path: Path) -> None:
    recipe = tiny()
    nodes = stage_graph(recipe, None)
    assumed = explained(recipe)
    assert "an assumed 20 GFLOP/s of this CPU" in assumed
    assert "large GPU would take" in assumed
    (tmp_path / "source-only").mkdir()
    (tmp_path / "source-only/started.json").write_text(json.dumps(identity(nodes[0]) | {"step": 2}))
    line = {"step": 50, "losses": {}, "lr": 0.1, "seconds": 2.0}
    (tmp_path / "source-only/metrics.jsonl").write_text(json.dumps(line) + "\n{cut sho")
    result = estimate(recipe, nodes, measured_seconds(nodes, tmp_path))
    assert "measured in this folder" in result.explanation
    assert result.seconds["source-only"] == pytest.approx(2.0 * 4)
    assert result.seconds["r1-cut"] == pytest.approx(2.0 * 4 * 7 / 3)
    larger = stage_graph(parse_recipe(RECIPE, ["crop.width=64"]), None)
    assert measured_seconds(larger, tmp_path) == {}, "steps of another size"


def test_a_run_says_beforehand_what_does_not_fit() -> None:
    recipe = tiny()
    nodes = stage_graph(recipe, None)
    loads = stage_loads(recipe, nodes)
    assert memory_notes(recipe, loads) == []
    (note,) = memory_notes(recipe, loads, available=10_000)
    assert note.startswith("a step of r1-distill needs about")
    needed = max(costs_of(recipe, n.training).memory(n.spec) for n in nodes if n.training)  # type: ignore[arg-type]
    assert memory_notes(recipe, loads, available=needed) != []
    halves = stage_loads(recipe, nodes, processes=2)
    assert memory_notes(recipe, halves, available=needed) == [], "a device has half of the rows"
