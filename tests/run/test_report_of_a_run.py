"""report.html of runs on generated images: after every stage, without labels, after a collapse, with two processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import domainbridge
from domainbridge.build.recipe import parse_recipe
from domainbridge.evaluation.confusion import scores
from domainbridge.report.run_facts import read_run
from domainbridge.report.write import ReportCallback
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.image_records import read_stage_images
from domainbridge.run.run import run_recipe
from tiny_domain import RECIPE

STAGES = ["source-only", "r1-cut", "r1-class", "r1-prototypes", "r1-distill"]


class AfterEveryStage(NullCallback):
    """Reads the report as a user would who opens it while the run goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages: dict[str, str] = {}
        self.phases: list[tuple[str, str, int]] = []

    def advance(self, node: Any, phase: str, done: int) -> None:
        self.phases.append((node.name, phase, done))

    def stage_ends(self, node: Any, results: Any) -> None:
        self.pages[node.name] = (self.folder / "report.html").read_text()


def run(tree: dict[str, Any], folder: Path, callbacks: Sequence[NullCallback] = ()) -> AfterEveryStage:
    reader = AfterEveryStage(folder)
    assert run_recipe(parse_recipe(tree), folder, [JSONLCallback(), ReportCallback(), *callbacks, reader])
    return reader


@pytest.fixture(scope="module")
def two_targets(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> tuple[Path, AfterEveryStage]:
    """A run with a labeled target and one without labels."""
    tree = {**RECIPE, "data_root": str(generated_data), "rounds": 1}
    tree["targets"] = [*RECIPE["targets"], {"name": "unlabeled", "root": "target", "images": "images"}]
    folder = tmp_path_factory.mktemp("report") / "run"
    return folder, run(tree, folder)


def first_screen(page: str) -> list[str]:
    """The sentences at the top."""
    return re.findall(r'<li class="(?:good|bad|neutral)">(.*?)</li>', page)


def test_the_report_is_written_after_every_stage(two_targets: tuple[Path, AfterEveryStage]) -> None:
    _, reader = two_targets
    assert list(reader.pages) == STAGES
    for number, stage in enumerate(STAGES):
        for later in STAGES[number + 1 :]:
            assert f"<td>{later}</td>" not in reader.pages[stage]
        assert f"<td>{stage}</td>" in reader.pages[stage]
    assert "Only source-only is scored so far" in reader.pages["source-only"]
    assert "not finished" in reader.pages["r1-class"]
    assert "not finished" not in reader.pages["r1-distill"]


def test_every_step_batch_and_image_is_counted(two_targets: tuple[Path, AfterEveryStage]) -> None:
    _, reader = two_targets
    assert [p for p in reader.phases if p[0] == "r1-cut"] == [
        *(("r1-cut", "training", done) for done in range(5)),
        *(("r1-cut", "label-free scoring", done) for done in range(4 + 4 + 1 + 1)),
        *(("r1-cut", "scoring", done) for done in range(4 + 10 + 1)),
    ]
    assert [p[2] for p in reader.phases if p[0] == "r1-prototypes"] == list(range(11))


def test_a_target_without_labels_has_pictures_and_shares(two_targets: tuple[Path, AfterEveryStage]) -> None:
    folder, _ = two_targets
    page = (folder / "report.html").read_text()
    assert any("unlabeled has no labels" in text for text in first_screen(page))
    assert "unlabeled: images that changed most" in page
    assert "unlabeled: 10 images" in page
    assert "fog: images that" in page
    assert "Pseudo-label share" in page
    assert "What r1-cut and r1-class disagree on: unlabeled" in page
    assert "source labels" in page, "the check counted them"


def test_the_counts_per_image_add_up_to_the_scores(two_targets: tuple[Path, AfterEveryStage]) -> None:
    folder, _ = two_targets
    results = json.loads((folder / "results.json").read_text())["stages"]
    for stage in ("source-only", "r1-distill"):
        images = read_stage_images(folder / stage / "evaluation-images.npz")
        assert images is not None
        fog = images.targets["fog"]
        assert fog.names == ("000.png", "001.png", "002.png", "003.png")
        total = torch.from_numpy(fog.counts[:, :-1].sum(0))
        assert scores(total, images.classes, 4).miou == pytest.approx(results[stage]["targets"]["fog"]["miou"])
        assert fog.counts.sum() == 4 * 40 * 48
        assert (fog.maps[0] < 3).all()
        unlabeled = images.targets["unlabeled"]
        assert not unlabeled.labeled
        assert unlabeled.counts[:, :-1].sum() == 0
        assert unlabeled.counts.sum() == 10 * 40 * 48


def test_memory_and_time_are_recorded(two_targets: tuple[Path, AfterEveryStage]) -> None:
    facts = read_run(two_targets[0])
    assert all(stage.peak_bytes is not None and stage.peak_bytes > 2**20 for stage in facts.stages.values())


def test_a_finished_run_keeps_its_report_and_makes_a_missing_one(
    two_targets: tuple[Path, AfterEveryStage], tmp_path: Path
) -> None:
    folder = shutil.copytree(two_targets[0], tmp_path / "run")
    recipe = parse_recipe(_recipe_of(folder))
    before = (folder / "report.html").stat().st_mtime_ns
    assert run_recipe(recipe, folder, [ReportCallback()])
    assert (folder / "report.html").stat().st_mtime_ns == before
    (folder / "report.html").unlink()
    assert run_recipe(recipe, folder, [ReportCallback()])
    assert "r1-distill" in (folder / "report.html").read_text()


def _recipe_of(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text())
    return tree


def test_a_failing_report_is_told_once_and_stops_nothing(
    recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no ink")

    class Listener(NullCallback):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def message(self, text: str) -> None:
            self.lines.append(text)

    monkeypatch.setattr("domainbridge.report.write.render", fails)
    recipe_tree["rounds"] = 1
    listener = Listener()
    assert run_recipe(parse_recipe(recipe_tree), tmp_path / "run", [ReportCallback(), listener])
    assert sum("no ink" in line for line in listener.lines) == 1
    assert not (tmp_path / "run/report.html").exists()
    assert (tmp_path / "run/model/model.safetensors").exists()


def test_a_deliberate_collapse_is_named_in_the_first_screen(recipe_tree: dict, tmp_path: Path) -> None:
    """Every pseudo-label is taken, whatever its confidence, at ten times the learning rate that taught the baseline."""
    steps = {"source-only": {"steps": 300, "learning_rate": 2e-3}}
    recipe_tree["training"] |= {"steps": 25, "learning_rate": 2e-2, "checkpoint_every": 1000}
    recipe_tree |= {"rounds": 1, "warm_start": True, "self_training": {"confidence": 0.0}, "stages": steps}
    run(recipe_tree, tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert first_screen(page)[0].startswith("Collapse on fog: ")
    facts = read_run(tmp_path / "run")
    counts = facts.stages["r1-distill"].counts("fog")
    assert counts is not None
    predicted = counts.counts.sum((0, 1))[:-1]
    collapsed = re.findall(r"Collapse on fog: (\w+) (has vanished|swallows)", page)
    assert collapsed
    for name, what in collapsed:
        share = predicted[["ground", "box", "sky"].index(name)] / predicted.sum()
        assert (share < 0.01) if what == "has vanished" else (share > 0.8)


def test_two_processes_keep_the_same_counts(recipe_tree: dict, generated_data: Path, tmp_path: Path) -> None:
    recipe_tree["targets"].append({"name": "unlabeled", "root": "target", "images": "images"})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe_tree))
    command = ["-m", "domainbridge", "run", tmp_path / "tiny.yaml", "--until", "source-only"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [*torchrun, *map(str, command), "--out", str(tmp_path / "two")]
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    alone = domainbridge.adapt(tmp_path / "tiny.yaml", out=tmp_path / "one", until="source-only")
    assert alone.write_report(tmp_path / "page.html").read_text() == (tmp_path / "one/report.html").read_text()
    two, one = (read_stage_images(tmp_path / out / "source-only/evaluation-images.npz") for out in ("two", "one"))
    assert two is not None
    assert one is not None
    for target in ("fog", "unlabeled"):
        assert two.targets[target].names == one.targets[target].names
        assert two.targets[target].maps.keys() == one.targets[target].maps.keys()
        differing = np.abs(two.targets[target].counts - one.targets[target].counts).sum()
        assert differing <= 0.02 * one.targets[target].counts.sum(), "but for the rounding of sums in training"
    assert (tmp_path / "two/report.html").exists()
    pictures = [read_run(tmp_path / out).pictures for out in ("two", "one")]
    for target, images in pictures[1].items():
        assert [image.jpeg for image in pictures[0][target].values()] == [image.jpeg for image in images.values()]
