"""Stages to compare with: AdaBN, the oracle. They leave every other stage as it is."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from domainbridge.build.batches import batchnorm_batches, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.cli.app import app
from domainbridge.errors import RecipeError
from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.models.heads.base import Head, HeadSpec, register_head
from domainbridge.models.model_folder import load_model
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import resolve_runtime
from domainbridge.tools.estimate import estimate
from domainbridge.tools.probe import probe


class Listener(NullCallback):
    """Remembers what was said and done; sends a signal when a stage reports a step, or begins (step 0)."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.said: list[str] = []
        self.begun: dict[str, str] = {}
        self.tested: list[str] = []
        self.stop_at = stop_at

    def message(self, text: str) -> None:
        self.said.append(text)

    def stage_begins(self, planned: Any) -> None:
        self.begun[planned.name] = planned.status.action
        self._at(planned.name, 0)

    def progress(self, node: Any, progress: Any) -> None:
        self._at(node.name, progress.step)

    def stage_tested(self, node: Any, targets: Any) -> None:
        self.tested.append(node.name)

    def _at(self, name: str, step: int) -> None:
        if (name, step) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)


def run(tree: dict[str, Any], folder: Path, stop_at: tuple[str, int] | None = None, **options: Any) -> Listener:
    listener = Listener(stop_at)
    assert run_recipe(parse_recipe(tree), folder, [listener, JSONLCallback()], **options) is (stop_at is None)
    return listener


def results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return content


def weights(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(folder / stage / "model" / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def fingerprints(tree: dict[str, Any]) -> dict[str, str]:
    recipe = parse_recipe(tree)
    return {node.name: node.fingerprint for node in stage_graph(recipe, open_data(recipe))}


@pytest.fixture
def short(recipe_tree: dict[str, Any]) -> dict[str, Any]:
    """One path after the baseline."""
    del recipe_tree["prototypes"]
    recipe_tree |= {"method": "self-training"}
    return recipe_tree


def test_adabn_is_source_only_with_the_targets_statistics(short: dict[str, Any], tmp_path: Path) -> None:
    run({**short, "adabn": True}, tmp_path / "run")
    content = results(tmp_path / "run")
    assert list(content["stages"]) == ["source-only", "adabn", "self-training"]
    assert content["final"] == "self-training"
    entry = content["stages"]["adabn"]
    assert entry["steps"] == 5  # ten target images, two at a time
    assert entry["targets"]["fog"]["images"] == 4
    adapted, before = weights(tmp_path / "run", "adabn"), weights(tmp_path / "run", "source-only")
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], adapted[name])}
    assert {"running_mean", "running_var"} <= changed <= {"running_mean", "running_var", "num_batches_tracked"}

    recipe = parse_recipe({**short, "adabn": True})
    data, stage = open_data(recipe), next(stage for stage in stages_of(recipe) if stage.name == "adabn")
    expected, _ = load_model(tmp_path / "run/source-only/model")
    crops = training_data(recipe, data, data.source, data.target)
    recompute_bn_stats(expected, batchnorm_batches(recipe, stage, 2, crops, resolve_runtime("cpu")))
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(adapted[name], value, msg=name)


@pytest.mark.parametrize("method", ["ddb", "self-training"])
def test_adabn_changes_no_other_stage(method: str, recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = {**recipe_tree, "method": method, "warm_start": True}
    if method == "self-training":
        del tree["prototypes"]
    without, with_it = fingerprints(tree), fingerprints({**tree, "adabn": True})
    assert with_it.keys() - without.keys() == {"adabn"}
    assert without == {name: value for name, value in with_it.items() if name != "adabn"}
    if method == "self-training":
        run(tree, tmp_path / "run")
        before = weights(tmp_path / "run", "self-training")
        begun = run({**tree, "adabn": True}, tmp_path / "run").begun
        assert begun == {"source-only": "done", "adabn": "run", "self-training": "done"}
        run({**tree, "adabn": True}, tmp_path / "new")
        assert same(before, weights(tmp_path / "new", "self-training"))


@pytest.mark.parametrize("stop_at", [("adabn", 0), ("adabn", 2), ("self-training", 0)])
def test_adabn_goes_on_after_a_stop(stop_at: tuple[str, int], short: dict[str, Any], tmp_path: Path) -> None:
    tree = {**short, "adabn": True, "training": {**short["training"], "log_every": 1}}
    run(tree, tmp_path / "whole")
    run(tree, tmp_path / "cut", stop_at=stop_at)
    assert (tmp_path / "cut/adabn/done.json").exists() == (stop_at[0] != "adabn")
    run(tree, tmp_path / "cut")
    for stage in ("adabn", "self-training"):
        assert same(weights(tmp_path / "whole", stage), weights(tmp_path / "cut", stage))
    assert results(tmp_path / "cut")["stages"].keys() == results(tmp_path / "whole")["stages"].keys()


def test_adabn_reacts_to_what_the_crops_depend_on(short: dict[str, Any]) -> None:
    short |= {"adabn": True}
    before = fingerprints(short)["adabn"]
    assert fingerprints({**short, "crop": {"width": 40, "height": 32}})["adabn"] != before
    assert fingerprints({**short, "sampling": {"domain_temperature": 0.5}})["adabn"] != before
    assert fingerprints({**short, "self_training": {"confidence": 0.5}})["adabn"] == before


def test_adabn_alone_after_source_only(short: dict[str, Any], tmp_path: Path) -> None:
    short |= {"adabn": True}
    with pytest.raises(RecipeError, match="--only adabn: needs source-only"):
        run_recipe(parse_recipe(short), tmp_path / "run", only="adabn")
    run(short, tmp_path / "run", until="source-only")
    assert run(short, tmp_path / "run", only="adabn").begun == {"adabn": "run"}


def test_adabn_needs_source_only_and_batchnorm(short: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="adabn: takes the source-only student"):
        parse_recipe({**short, "adabn": True, "source_only": False})
    # ConvNeXt normalizes by LayerNorm; the head has BatchNorm.
    mixed = {**short, "adabn": True, "model": {**short["model"], "backbone": "convnext_atto", "output_stride": 32}}
    mixed |= {"crop": {"width": 64, "height": 64}}
    said = run(mixed, tmp_path / "mixed", until="adabn").said
    assert "note: adabn: convnext_atto has no BatchNorm layer; only the head takes the target's statistics" in said


class PlainHead(Head):
    """Without any normalization."""

    def __init__(self, spec: HeadSpec, fine_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, spec.channels, 1)
        self.classifier = nn.Conv2d(spec.channels, num_classes, 1)

    def forward(self, fine: Tensor, deepest: Tensor) -> Tensor:
        return self.project(deepest)

    def reset(self, *, published: bool) -> None:
        nn.init.zeros_(self.classifier.bias)


def test_a_network_without_batchnorm_is_refused_for_adabn(short: dict[str, Any], tmp_path: Path) -> None:
    register_head("plain-for-adabn")(PlainHead)
    model = {"backbone": "convnext_atto", "output_stride": 32, "head": {"kind": "plain-for-adabn"}}
    short |= {"adabn": True, "model": model, "crop": {"width": 64, "height": 64}}
    message = "adabn: convnext_atto with head plain-for-adabn has no BatchNorm layer.*set adabn: false"
    with pytest.raises(RecipeError, match=message):
        run(short, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    written = tmp_path / "recipe.yaml"
    written.write_text(yaml.safe_dump(short))
    planned = CliRunner().invoke(app, ["plan", str(written)])
    assert isinstance(planned.exception, RecipeError)
    run({**short, "adabn": False}, tmp_path / "run", until="source-only")


def test_adabn_in_plans(short: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe({**short, "adabn": True})
    data = open_data(recipe)
    nodes = stage_graph(recipe, data)
    (item,) = (item for item in plan(nodes, tmp_path) if item.name == "adabn")
    assert (item.node.steps, item.status.action) == (5, "run")
    seconds = estimate(recipe, nodes).seconds
    assert 0 < seconds["adabn"] < seconds["source-only"] * 5
    probed = probe(recipe, data, [node.spec for node in nodes])
    assert probed["adabn"].seconds > 0
    assert estimate(recipe, nodes, probed=probed).seconds["adabn"] == 5 * probed["adabn"].seconds
