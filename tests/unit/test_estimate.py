"""What a plan says about memory and time."""

import copy
import json
from pathlib import Path

import pytest
import torch

from domainbridge.adaptation.losses import cross_entropy
from domainbridge.config.load import load_recipe, parse_recipe
from domainbridge.config.schema import Recipe
from domainbridge.errors import RecipeError
from domainbridge.models.segmenter import build_segmenter
from domainbridge.pipeline.costs import costs_of
from domainbridge.pipeline.estimate import device_memory, estimate, memory_notes
from domainbridge.pipeline.networks import model_spec
from domainbridge.pipeline.plan import plan_stages
from domainbridge.pipeline.probe import Probe
from tiny_domain import RECIPE


def tiny(**training: object) -> Recipe:
    return parse_recipe(copy.deepcopy(RECIPE) | {"training": RECIPE["training"] | training})


def test_costs_follow_the_batch() -> None:
    one, two = (costs_of(recipe, recipe.training) for recipe in (tiny(), tiny(batch_size=4)))
    assert two.operations == 2 * one.operations
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    assert one.parameters == two.parameters
    assert one.step_operations("source-only") == 3 * one.operations
    assert one.step_operations("cut") == 7 * one.operations
    assert one.step_operations("distil") == 8 * one.operations
    assert one.memory("distil") - one.memory("class") == 4 * one.parameters
    recipe = tiny(batch_size=4, accumulate=2)
    parts = costs_of(recipe, recipe.training)
    assert (parts.operations, parts.activations) == (two.operations, one.activations), (
        "as much work, half of the memory"
    )


def test_activations_are_what_autograd_really_keeps() -> None:
    """Counted on a real forward pass, by the memory that the saved tensors' storages have."""
    recipe = tiny()
    student = build_segmenter(model_spec(recipe)).train()
    own = {weight.data_ptr() for weight in (*student.parameters(), *student.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    image, label = torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        cross_entropy(student(image).logits, label)
    real = sum(storage.nbytes() for storage in kept.values())
    assert costs_of(recipe, recipe.training).activations == pytest.approx(real, rel=0.1)


def test_the_published_network() -> None:
    """47,833,715 parameters (golden a); its arithmetic at 512x512 is some 400 GFLOP an image."""
    recipe = load_recipe("gta-to-cityscapes")
    costs = costs_of(recipe, recipe.training)
    assert costs.parameters == 47_833_715
    assert 300e9 < costs.operations / recipe.training.batch_size < 500e9
    half = costs_of(recipe, recipe.training.model_copy(update={"precision": "bfloat16"}))
    assert half.activations == costs.activations // 2
    sparing = costs_of(recipe, recipe.training.model_copy(update={"recompute": True}))
    assert sparing.activations < costs.activations / 2
    assert sparing.step_operations("cut") == pytest.approx(9 / 7 * costs.step_operations("cut"), rel=0.05)


def test_what_does_not_fit_is_told_with_keys_that_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(batch_size=16)
    stages = plan_stages(recipe, None)
    assert "more than this device" not in estimate(recipe, stages, tmp_path).explanation
    half = costs_of(recipe, recipe.training.model_copy(update={"precision": "bfloat16"})).memory("distil")
    monkeypatch.setattr("domainbridge.pipeline.estimate.device_memory", lambda device: half / 0.89)
    told = estimate(recipe, stages, tmp_path).explanation
    assert "more than this device's" in told
    assert "these fit: training.precision=bfloat16 (" in told
    monkeypatch.setattr("domainbridge.pipeline.estimate.device_memory", lambda device: 1)
    assert "take a smaller crop or backbone" in estimate(recipe, stages, tmp_path).explanation


@pytest.mark.parametrize("backbone", ["regnety_002", "hrnet_w18_small"])
def test_backbones_without_plain_blocks(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"backbone": backbone, "output_stride": 32}
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"model": model, "crop": {"width": 128, "height": 128}})
    monkeypatch.setattr("domainbridge.pipeline.estimate.device_memory", lambda device: 2**26)
    told = estimate(recipe, plan_stages(recipe, None), tmp_path).explanation
    assert "more than this device's" in told
    assert ("recompute" in told) <= (backbone == "hrnet_w18_small")


def test_parts_too_small_for_batchnorm_are_no_way_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of 1x1 at the head: half of them cannot be normalised."""
    model = {**RECIPE["model"], "output_stride": 32}
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"model": model})
    monkeypatch.setattr("domainbridge.pipeline.estimate.device_memory", lambda device: 2**20)
    told = estimate(recipe, plan_stages(recipe, None), tmp_path).explanation
    assert "more than this device's" in told
    assert "accumulate" not in told


def test_a_recipe_whose_parts_are_too_small_for_batchnorm_is_told_so(tmp_path: Path) -> None:
    training = {**RECIPE["training"], "batch_size": 2, "accumulate": 2}
    recipe = parse_recipe(
        copy.deepcopy(RECIPE) | {"model": {**RECIPE["model"], "output_stride": 32}, "training": training}
    )
    with pytest.raises(RecipeError, match=r"1 rows of .* \(batch_size 2, accumulate 2\) are too few for BatchNorm"):
        estimate(recipe, plan_stages(recipe, None), tmp_path)


def test_memory_of_devices() -> None:
    machine = device_memory("cpu")
    assert machine is not None
    assert machine > 2**28
    assert device_memory("cuda:99") is None
    assert device_memory("nonsense") is None
    assert device_memory("meta") is None


def test_a_probe_replaces_both(tmp_path: Path) -> None:
    recipe = tiny()
    stages = plan_stages(recipe, None)
    probed = {"source-only": Probe(0.5, None), "cut": Probe(1.0, None), "distil": Probe(2.0, 3 * 2**30)}
    told = estimate(recipe, stages, tmp_path, probed)
    assert told.seconds == {"source-only": 2.0, "r1-cut": 4.0, "r1-distil": 8.0, "r2-cut": 4.0, "r2-distil": 8.0}
    assert "3.0 GiB allocated at the peak of the probed steps" in told.explanation


def test_measured_steps_replace_the_assumption(tmp_path: Path) -> None:
    recipe = tiny()
    stages = plan_stages(recipe, None)
    assumed = estimate(recipe, stages, tmp_path)
    assert "an assumed 20 GFLOP/s of this CPU" in assumed.explanation
    assert "large GPU would take" in assumed.explanation
    (tmp_path / "source-only").mkdir()
    (tmp_path / "source-only/started.json").write_text(json.dumps({"spec": stages[0].spec, "step": 2}))
    line = {"step": 50, "losses": {}, "lr": 0.1, "seconds": 2.0}
    (tmp_path / "source-only/metrics.jsonl").write_text(json.dumps(line) + "\n{cut sho")
    measured = estimate(recipe, stages, tmp_path)
    assert "measured in this folder" in measured.explanation
    assert measured.seconds["source-only"] == pytest.approx(2.0 * 4)
    assert measured.seconds["r1-cut"] == pytest.approx(2.0 * 4 * 7 / 3)
    larger = parse_recipe(RECIPE, ["crop.width=64"])
    assert "measured" not in estimate(larger, plan_stages(larger, None), tmp_path).explanation, "steps of another size"


def test_a_run_says_beforehand_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny()
    assert memory_notes(recipe, plan_stages(recipe, None)) == []
    monkeypatch.setattr("domainbridge.pipeline.estimate.device_memory", lambda _: 10_000)
    (note,) = memory_notes(recipe, plan_stages(recipe, None))
    assert note.startswith("a step of r1-distil needs about")
