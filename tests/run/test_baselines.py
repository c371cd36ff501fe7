"""Stages to compare with: AdaBN, the oracle. Scores on images that decided nothing. No other stage changes."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from typer.testing import CliRunner

from domainbridge.api import adapt, evaluate
from domainbridge.build.batches import batchnorm_batches, oracle_data, paired_crops, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.cli.app import app
from domainbridge.errors import DataError, RecipeError
from domainbridge.methods.adapt_batchnorm import recompute_bn_stats
from domainbridge.methods.base import TrainingStage
from domainbridge.models.heads.base import Head, HeadSpec, register_head
from domainbridge.models.model_folder import load_model
from domainbridge.report.comparison import compare_tests
from domainbridge.report.run_facts import read_run
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.results import read_results
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import resolve_runtime
from domainbridge.tools.estimate import estimate
from domainbridge.tools.probe import probe
from domainbridge.types import Rows
from tiny_domain import write_domain


class Listener(NullCallback):
    """Remembers what was said and done; sends a signal when a stage reports a step, or begins (step 0)."""

    def __init__(self, stop_at: tuple[str, int] | None = None, number: signal.Signals = signal.SIGINT) -> None:
        self.messages: list[str] = []
        self.begun: dict[str, str] = {}
        self.tested: list[str] = []
        self.stop_at, self.number = stop_at, number

    def message(self, text: str) -> None:
        self.messages.append(text)

    def stage_begins(self, planned: Any) -> None:
        self.begun[planned.name] = planned.status.action
        self._at(planned.name, 0)

    def progress(self, node: Any, progress: Any) -> None:
        self._at(node.name, progress.step)

    def stage_tested(self, node: Any, targets: Any) -> None:
        self.tested.append(node.name)

    def _at(self, name: str, step: int) -> None:
        if (name, step) == self.stop_at:
            os.kill(os.getpid(), self.number)


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


def _run_and_die(tree: dict[str, Any], folder: str, stage: str, step: int) -> None:
    """In a child process: die by SIGKILL, without warning."""
    run_recipe(parse_recipe(tree), Path(folder), [Listener((stage, step), signal.SIGKILL), JSONLCallback()])


@pytest.mark.parametrize(("stage", "step"), [("adabn", 3), ("self-training", 0), ("oracle", 0)])
def test_baselines_after_a_kill(stage: str, step: int, labeled: dict[str, Any], tmp_path: Path) -> None:
    tree = {**with_target(labeled, oracle={"labels": "labels"}), "adabn": True, "oracle": True}
    tree["training"] = {**tree["training"], "log_every": 1}
    run(tree, tmp_path / "whole")
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_die, args=(tree, str(tmp_path / "cut"), stage, step)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    begun = run(tree, tmp_path / "cut").begun
    assert begun["source-only"] == "done"
    assert begun["adabn"] == ("resume" if stage == "adabn" else "done")
    for name in ("source-only", "adabn", "self-training", "oracle"):
        assert same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))


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
    messages = run(mixed, tmp_path / "mixed", until="adabn").messages
    assert "note: adabn: convnext_atto has no BatchNorm layer; only the head takes the target's statistics" in messages


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


@pytest.fixture
def labeled(short: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe over its own copy of the data: the target's training images have labels, and there are test images."""
    data = tmp_path / "data"
    for folder in ("source", "target-val"):
        shutil.copytree(Path(short["data_root"]) / folder, data / folder)
    write_domain(data / "target", 10, 2, foggy=True, labeled=True)
    write_domain(data / "target-test", 3, 4, foggy=True, labeled=True)
    return {**short, "data_root": str(data)}


def with_target(tree: dict[str, Any], **sections: Any) -> dict[str, Any]:
    (target,) = tree["targets"]
    return {**tree, "targets": [{**target, **sections}]}


def test_the_oracle_is_supervised_training_on_the_target(labeled: dict[str, Any], tmp_path: Path) -> None:
    oracle = {**with_target(labeled, oracle={"labels": "labels"}), "oracle": True}
    run(oracle, tmp_path / "run")
    content = results(tmp_path / "run")
    assert (list(content["stages"]), content["final"]) == (["source-only", "self-training", "oracle"], "self-training")
    assert content["stages"]["oracle"]["targets"]["fog"]["images"] == 4
    assert same(weights(tmp_path / "run", "."), weights(tmp_path / "run", "self-training"))
    # The same as source-only of a recipe whose source is the labeled target, up to the random stream.
    recipe = parse_recipe(oracle)
    crops = replace(
        training_data(recipe, open_data(recipe), open_data(recipe).source, open_data(recipe).target),
        oracle=oracle_data(recipe, open_data(recipe)),
    )
    stage = stages_of(recipe)[-1]
    assert isinstance(stage, TrainingStage)
    batch = paired_crops(recipe, stage, 2, crops, Rows.whole(2))[0]
    source = {"name": "own", "root": "target", "images": "images", "labels": "labels"}
    expected = parse_recipe({**labeled, "sources": [source]})
    data = open_data(expected)
    same_stage = replace(stages_of(expected)[0], stream="oracle", supervision="source")
    assert isinstance(same_stage, TrainingStage)
    other = paired_crops(
        expected, same_stage, 2, training_data(expected, data, data.source, data.target), Rows.whole(2)
    )
    assert torch.equal(batch.source_image, other[0].source_image)
    assert torch.equal(batch.source_label, other[0].source_label)


def test_the_oracle_changes_no_other_stage(labeled: dict[str, Any], tmp_path: Path) -> None:
    labeled |= {"adabn": True}
    without = fingerprints(labeled)
    sections = with_target(labeled, oracle={"labels": "labels"})
    assert fingerprints(sections) == without, "labels that nothing reads"
    oracle = fingerprints({**sections, "oracle": True})
    assert list(oracle)[-1] == "oracle"
    assert {name: value for name, value in oracle.items() if name != "oracle"} == without
    run(labeled, tmp_path / "plain")
    run({**sections, "oracle": True}, tmp_path / "beside")
    for stage in without:
        assert same(weights(tmp_path / "plain", stage), weights(tmp_path / "beside", stage))
    begun = run({**sections, "oracle": True}, tmp_path / "plain").begun
    assert begun == {"source-only": "done", "adabn": "done", "self-training": "done", "oracle": "run"}

    label = Path(labeled["data_root"]) / "target/labels/000.png"
    Image.fromarray(255 - np.asarray(Image.open(label))).save(label)
    changed = fingerprints({**sections, "oracle": True})
    assert [name for name in oracle if changed[name] != oracle[name]] == ["oracle"]


def test_the_oracle_has_the_steps_of_source_only(labeled: dict[str, Any]) -> None:
    tree = {**with_target(labeled, oracle={"labels": "labels"}), "oracle": True}

    def training(**stages: Any) -> Any:
        recipe = parse_recipe({**tree, "stages": stages})
        return next(node.training for node in stage_graph(recipe, None) if node.name == "oracle")

    assert training(**{"source-only": {"steps": 7, "learning_rate": 0.5}}).steps == 7
    mixed = training(**{"source-only": {"steps": 7, "learning_rate": 0.5}, "oracle": {"steps": 9}})
    assert (mixed.steps, mixed.learning_rate) == (9, 0.5)


def test_the_oracle_resumes_and_stops_before_with_until(labeled: dict[str, Any], tmp_path: Path) -> None:
    tree = {**with_target(labeled, oracle={"labels": "labels"}), "oracle": True}
    tree["training"] = {**tree["training"], "log_every": 1}
    run(tree, tmp_path / "whole")
    assert "oracle" not in run(tree, tmp_path / "cut", until="self-training").begun
    run(tree, tmp_path / "cut", stop_at=("oracle", 2))
    assert run(tree, tmp_path / "cut").begun["oracle"] == "resume"
    assert same(weights(tmp_path / "whole", "oracle"), weights(tmp_path / "cut", "oracle"))


def test_the_oracle_of_several_targets_mixes_those_with_labels(labeled: dict[str, Any]) -> None:
    (target,) = labeled["targets"]
    other = {key: value for key, value in target.items() if key != "validation"}
    first = {**target, "oracle": {"labels": "labels"}}
    third = {**other, "name": "third", "root": "target-test", "oracle": {"labels": "labels"}}
    targets = [first, {**other, "name": "unlabeled"}, third]
    tree = {**labeled, "targets": targets, "oracle": True, "sampling": {"domain_temperature": 0}}
    recipe = parse_recipe(tree)
    data = open_data(recipe)
    assert {name: len(files) for name, files in data.oracle.items()} == {"fog": 10, "third": 3}
    read = oracle_data(recipe, data)
    assert read is not None
    assert (read.mixture.sizes, read.mixture.shares.tolist()) == ((10, 3), [0.5, 0.5])


def test_the_oracle_is_refused_without_labels(labeled: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"oracle: needs labels of a target's training images"):
        parse_recipe({**labeled, "oracle": True})
    tree = {**with_target(labeled, oracle={"labels": "no-such-folder"}), "oracle": True}
    with pytest.raises(DataError, match=r"targets\.fog\.oracle: .*no-such-folder"):
        open_data(parse_recipe(tree))
    open_data(parse_recipe({**tree, "oracle": False}))


def test_rare_classes_and_copies_of_the_oracle(labeled: dict[str, Any], tmp_path: Path) -> None:
    tree = {**with_target(labeled, oracle={"labels": "labels"}), "oracle": True}
    tree |= {"sampling": {"rare_classes": True}}
    run(tree, tmp_path / "run")
    assert (tmp_path / "run/oracle-class-counts.npz").exists()
    run({**tree, "cache": {"folder": "copies"}}, tmp_path / "copies")
    for stage in ("source-only", "oracle"):
        assert same(weights(tmp_path / "run", stage), weights(tmp_path / "copies", stage))


def test_test_images_score_the_final_model_and_the_baselines(labeled: dict[str, Any], tmp_path: Path) -> None:
    test = {"root": "target-test"}
    tree = {**with_target(labeled, test=test, oracle={"labels": "labels"}), "oracle": True, "adabn": True}
    tree |= {"method": "ddb", "rounds": 1, "prototypes": {"passes": 1}}
    listener = run(tree, tmp_path / "run")
    compared = ["source-only", "adabn", "r1-distill", "oracle"]
    assert listener.tested == compared
    stages = results(tmp_path / "run")["stages"]
    assert [name for name, stage in stages.items() if "test" in stage["targets"].get("fog", {})] == compared
    entry = stages["r1-distill"]["targets"]["fog"]
    assert entry["test"]["images"] == 3
    assert entry["images"] == 4
    assert entry["test"].keys() == entry.keys() - {"test"}
    assert "held_out" not in results(tmp_path / "run")
    assert any("fog: 3 test images beside 4 validation images" in text for text in listener.messages)
    read = read_results(tmp_path / "run")
    assert read.to_json() == results(tmp_path / "run")
    assert read.stages["adabn"].tests["fog"].images == 3
    tested = compare_tests(read_run(tmp_path / "run"))["fog"]
    assert list(tested) == compared
    assert tested["r1-distill"].scores.miou.value == pytest.approx(read.stages["r1-distill"].tests["fog"].miou)
    assert tested["r1-distill"].gain is not None
    assert np.isfinite(tested["r1-distill"].gain.miou.low)

    scored = evaluate(tmp_path / "run/model", tree)
    assert scored["fog test"] == read.stages["r1-distill"].tests["fog"]
    assert scored["fog"] == read.stages["r1-distill"].targets["fog"]
    # A changed test set is scored again and trains nothing.
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.json")}
    (Path(labeled["data_root"]) / "target-test/images/000.png").unlink()
    (Path(labeled["data_root"]) / "target-test/labels/000.png").unlink()
    assert set(run(tree, tmp_path / "run").begun.values()) == {"done"}
    assert results(tmp_path / "run")["stages"]["adabn"]["targets"]["fog"]["test"]["images"] == 2
    same_files = list((tmp_path / "run").rglob("evaluation.json"))
    assert same_files
    assert all(path.stat().st_mtime_ns == written[path] for path in same_files)


def test_a_target_with_test_images_alone(labeled: dict[str, Any], tmp_path: Path) -> None:
    (target,) = labeled["targets"]
    alone = {key: value for key, value in target.items() if key != "validation"}
    tree = {**labeled, "targets": [{**alone, "test": {"root": "target-test", "labels": "labels"}}]}
    run(tree, tmp_path / "run")
    entry = results(tmp_path / "run")["stages"]["source-only"]["targets"]["fog"]
    assert list(entry) == ["test"]
    assert read_results(tmp_path / "run").stages["source-only"].targets == {}
    assert list(evaluate(tmp_path / "run/model", tree)) == ["fog test"]


def test_held_out_images_decide_nothing(labeled: dict[str, Any], tmp_path: Path) -> None:
    tree = {**labeled, "evaluation": {"hold_out": 0.3}}
    listener = run(tree, tmp_path / "run")
    content = results(tmp_path / "run")
    assert content["held_out"] == {"fog": 1}
    fog = content["stages"]["self-training"]["targets"]["fog"]
    assert (fog["images"], fog["test"]["images"]) == (3, 1)
    assert any("fog: 1 of 4 validation images are held out (evaluation.hold_out)" in text for text in listener.messages)
    assert listener.tested == ["source-only", "self-training"]
    assert fingerprints(tree) == fingerprints(labeled)
    assert read_results(tmp_path / "run").to_json() == content

    run(labeled, tmp_path / "run")  # without the key: all images again, and no test
    content = results(tmp_path / "run")
    assert content["stages"]["self-training"]["targets"]["fog"]["images"] == 4
    assert "held_out" not in content
    assert not any("test" in stage["targets"]["fog"] for stage in content["stages"].values())


def test_plan_and_check_tell_about_test_images(labeled: dict[str, Any], tmp_path: Path) -> None:
    def planned(tree: dict[str, Any]) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(tree))
        return CliRunner().invoke(app, ["plan", str(path), "--out", str(tmp_path / "run")]).output

    assert "if keys are chosen by these scores" in planned(labeled)
    held_out = {**labeled, "evaluation": {"hold_out": 0.3}}
    assert "1 of 4 validation images are held out" in planned(held_out)
    unlabeled = {key: value for key, value in labeled["targets"][0].items() if key != "validation"}
    assert "evaluation.hold_out: no effect" in planned({**held_out, "targets": [unlabeled]})
    text = planned(with_target(labeled, test={"root": "target-test"}))
    assert "3 test images beside 4 validation images" in text
    assert "if keys are chosen" not in text


def test_trackers_are_told_of_baselines_and_test_images(
    labeled: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = MagicMock()
    wandb.init.return_value.summary = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    tree = {**with_target(labeled, test={"root": "target-test"}), "adabn": True}
    tree["runtime"] = {**tree["runtime"], "callbacks": ["tensorboard", "wandb"]}
    assert adapt(tree, out=tmp_path / "run", callbacks=[]).finished
    curves = EventAccumulator(str(tmp_path / "run/adabn"))
    curves.Reload()
    tags = set(curves.Tags()["scalars"])
    assert {"mIoU/fog", "mIoU/fog test"} <= tags
    assert not any(tag.startswith("loss/") or tag == "learning_rate" for tag in tags)
    scored = results(tmp_path / "run")["stages"]["adabn"]["targets"]["fog"]
    assert curves.Scalars("mIoU/fog test")[0].value == pytest.approx(scored["test"]["miou"], rel=1e-5)
    assert wandb.init.return_value.summary["adabn/mIoU/fog test"] == scored["test"]["miou"]
