"""A whole run on generated images: stages, results, resuming, repeating."""

import csv
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import domainbridge
from domainbridge.build.batches import batchnorm_batches, training_data
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.build.training_sizes import training_sizes
from domainbridge.data.dataset import Dataset
from domainbridge.data.training_sizes import ImageSizes
from domainbridge.errors import RecipeError, RunFolderError, TrainingError
from domainbridge.methods.base import TrainingStage
from domainbridge.models.model_folder import load_model, save_model
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.graph import PlannedStage, plan, stage_graph
from domainbridge.run.results import read_results
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import resolve_runtime
from domainbridge.tools.loading import Loading
from domainbridge.tools.pack import pack_domains, recipe_lines
from domainbridge.training.checkpoint import load_checkpoint
from domainbridge.types import Sample

STAGES = ["source-only"] + [f"r{r}-{part}" for r in (1, 2) for part in ("cut", "class", "prototypes", "distill")]
TRAINED = [name for name in STAGES if "prototypes" not in name]


class Recorder(NullCallback):
    """Remembers what began, and calls ``at`` when a stage begins (step 0) or reports a step."""

    def __init__(self, at: Callable[[str, int], None] = lambda stage, step: None) -> None:
        self.begun: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.at = at

    def stage_begins(self, planned: Any) -> None:
        self.begun[planned.name] = planned.status.action
        self.reasons[planned.name] = planned.status.reason
        self.at(planned.name, 0)

    def progress(self, node: Any, progress: Any) -> None:
        self.at(node.name, progress.step)


class Lines(NullCallback):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def signal_at(stage: str, step: int, number: signal.Signals) -> Callable[[str, int], None]:
    """Send a signal to this process when a stage reports a step, or begins (step 0)."""

    def at(name: str, reported: int) -> None:
        if (name, reported) == (stage, step):
            os.kill(os.getpid(), number)

    return at


def run(tree: dict[str, Any], folder: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    assert run_recipe(parse_recipe(tree), folder, [recorder, JSONLCallback()], **options)
    return recorder


def planned(tree: dict[str, Any], folder: Path) -> dict[str, PlannedStage]:
    recipe = parse_recipe(tree)
    return {item.name: item for item in plan(stage_graph(recipe, open_data(recipe)), folder)}


def weights(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(folder / stage / "model" / "model.safetensors")


def assert_same_weights(one: Path, other: Path, stages: list[str] = TRAINED) -> None:
    for stage in stages:
        expected = weights(one, stage)
        for name, value in weights(other, stage).items():
            assert torch.equal(value, expected[name]), f"{stage}: {name}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> Path:
    """One uninterrupted run that the tests here compare with and must not change."""
    from tiny_domain import RECIPE

    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run({**RECIPE, "data_root": str(generated_data)}, folder)
    return folder


def test_everything_is_there(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert list(results["stages"]) == STAGES
    assert results["final"] == "r2-distill"
    for name in TRAINED:
        entry = results["stages"][name]
        assert entry["steps"] == 4
        fog = entry["targets"]["fog"]
        assert set(fog["iou"]) == {"ground", "box", "sky"}
        assert 0 <= fog["miou"] <= 100
        assert fog["images"] == 4
        lines = [json.loads(line) for line in (finished / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4]
        assert set(lines[0]) == {"step", "losses", "lr", "seconds", "metrics", "data_share"}
        assert all(0 <= line["data_share"] <= 1 for line in lines)
        assert not (finished / name / "state.pt").exists()
    assert weights(finished, ".")  # RUN/model, the final student
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["training"]["head_lr_mult"] == 10
    assert json.loads((finished / "environment.json").read_text())["packages"]["torch"]


def test_predict_marks_where_the_two_paths_disagree(finished: Path, generated_data: Path, tmp_path: Path) -> None:
    images = generated_data / "target-val/images"
    shutil.copytree(finished, tmp_path / "run")
    network, config = load_model(tmp_path / "run/r2-class/model")
    torch.nn.init.normal_(network.head.classifier.weight, generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "run/r2-class/model", network, config)  # four steps alone leave two networks that agree
    written = domainbridge.predict(tmp_path / "run/model", images, tmp_path / "out", disagreement=True, shares=True)
    cut, class_ = (domainbridge.load_model(tmp_path / "run" / stage / "model") for stage in ("r2-cut", "r2-class"))
    with (tmp_path / "out/class-shares.csv").open() as file:
        shares = {Path(row["image"]).stem: float(row["disagreement"]) for row in csv.DictReader(file)}
    assert written == len(shares) == 4
    for path in sorted(images.iterdir()):
        expected = cut.predict(path) != class_.predict(path)
        with Image.open(tmp_path / f"out/{path.stem}_disagreement.png") as image:
            assert (np.asarray(image) == 255 * expected).all()
        assert shares[path.stem] == pytest.approx(100 * expected.mean(), abs=1e-3)
    assert any(shares.values()), "the test sees some disagreement"
    other = domainbridge.load_model(tmp_path / "run/r2-class/model")
    with Image.open(tmp_path / "out/000.png") as image:
        assert (np.asarray(image) == domainbridge.load_model(tmp_path / "run/model").predict(images / "000.png")).all()
        assert (np.asarray(image) != other.predict(images / "000.png")).any(), "the classes are those of MODEL"


def test_disagreement_needs_a_run_with_two_paths(finished: Path, generated_data: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "model", tmp_path / "copy/elsewhere/model")
    with pytest.raises(RunFolderError, match="lies in no run folder"):
        domainbridge.predict(
            tmp_path / "copy/elsewhere/model", generated_data / "target-val", tmp_path / "out", disagreement=True
        )
    assert not (tmp_path / "out").exists()


def test_model_folders_say_which_sizes_training_had(finished: Path) -> None:
    clear = {"images": 12, "smallest": [40, 48], "median": [40, 48], "largest": [40, 48], "scale": [1.0, 1.0]}
    fog = clear | {"images": 10}
    expected = {stage: {"crop": [32, 32], "source": clear, "target": fog} for stage in (".", "r1-cut", "r2-distill")}
    expected["source-only"] = {"crop": [32, 32], "source": clear, "target": None}
    for stage, sizes in expected.items():
        assert json.loads((finished / stage / "model/config.json").read_text())["training_sizes"] == sizes


def test_sizes_are_those_at_the_network_and_unreadable_files_are_left_out(
    generated_data: Path, recipe_tree: dict, tmp_path: Path
) -> None:
    shutil.copytree(generated_data, tmp_path / "data")
    images = sorted((tmp_path / "data/target/images").iterdir())
    for path, size in zip(images, [(20, 10), (100, 50), (60, 60)], strict=False):
        Image.new("RGB", size).save(path)
    images[3].write_bytes(b"no image")
    recipe_tree["data_root"] = str(tmp_path / "data")
    recipe_tree["crop"]["target_scale"] = [0.5, 2.0]
    recipe_tree["targets"][0]["resize"] = {"width": 200, "height": 100}
    recipe = parse_recipe(recipe_tree)
    stage = next(stage for stage in stages_of(recipe) if stage.name == "r1-cut")
    sizes = training_sizes(recipe, stage, open_data(recipe))
    assert sizes.source == ImageSizes(12, (40, 48), (40, 48), (40, 48))
    assert sizes.target == ImageSizes(len(images) - 1, (100, 100), (100, 120), (100, 200), (0.5, 2.0))


def test_the_final_model_is_the_last_student(finished: Path) -> None:
    final, last = weights(finished, "."), weights(finished, "r2-distill")
    assert all(torch.equal(final[name], last[name]) for name in last)


def test_a_second_run_does_nothing(finished: Path, recipe_tree: dict) -> None:
    before = (finished / "r2-distill" / "model" / "model.safetensors").stat().st_mtime_ns
    assert set(run(recipe_tree, finished).begun.values()) == {"done"}
    assert (finished / "r2-distill" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_stages_differ(finished: Path) -> None:
    for one, other in (("r1-cut", "r1-class"), ("r1-cut", "r2-cut"), ("r1-distill", "r2-distill")):
        name = "head.classifier.weight"
        assert not torch.equal(weights(finished, one)[name], weights(finished, other)[name])


@pytest.mark.parametrize("num_workers", [2])
def test_workers_do_not_change_the_result(num_workers: int, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    recipe_tree["runtime"]["num_workers"] = num_workers
    run(recipe_tree, tmp_path / "run", until="r1-cut")
    assert_same_weights(finished, tmp_path / "run", ["source-only", "r1-cut"])


def test_lossless_copies_do_not_change_the_result(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    with_cache = {**recipe_tree, "cache": {"folder": str(tmp_path / "copies")}}
    run(with_cache, tmp_path / "run", until="r1-class")
    assert_same_weights(finished, tmp_path / "run", ["source-only", "r1-cut", "r1-class"])
    assert list((tmp_path / "copies").glob("??/*.npy"))
    jpeg = {**with_cache, "cache": {"folder": str(tmp_path / "copies"), "format": "jpeg"}}
    again = planned(jpeg, tmp_path / "run")
    assert {item.status.action for item in again.values()} == {"run"}
    assert "cache" in again["source-only"].status.reason


def test_copies_where_loading_is_slow(
    finished: Path, recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cache.use: auto` decides by the speed of loading, and changes no result."""
    tree = {**recipe_tree, "cache": {"folder": str(tmp_path / "copies"), "use": "auto"}}
    for seconds, copies in ((1e-9, False), (1e3, True)):
        monkeypatch.setattr(
            "domainbridge.run.training_files.loading_rate", lambda *_, each=seconds: Loading(each, each)
        )
        lines = Lines()
        run_recipe(parse_recipe(tree), tmp_path / f"run-{copies}", [lines], until="source-only")
        assert any(text.startswith("note: cache.use: auto: 0 loader process(es)") for text in lines.texts)
        assert bool(list((tmp_path / "copies").glob("??/*.npy"))) == copies
        assert_same_weights(finished, tmp_path / f"run-{copies}", ["source-only"])


def test_two_stages_in_two_processes(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """`run --only` of both paths at the same time: the weights of one run, and both in the results."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe_tree))
    run(recipe_tree, tmp_path / "run", until="source-only")
    command = [sys.executable, "-m", "domainbridge", "run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]
    stages = ["r1-cut", "r1-class"]
    both = [subprocess.Popen([*command, "--only", stage], stderr=subprocess.PIPE, text=True) for stage in stages]
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert_same_weights(finished, tmp_path / "run", ["source-only", *stages])
    assert set(read_results(tmp_path / "run").stages) == {"source-only", *stages}


def test_a_stop_is_heard_while_scoring(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """Requested at the last step: the stage ends, its scores do not; the same command scores again and goes on."""
    stopping = Recorder(signal_at("source-only", 4, signal.SIGTERM))
    assert not run_recipe(parse_recipe(recipe_tree), tmp_path / "run", [stopping])
    assert (tmp_path / "run/source-only/done.json").exists()
    assert not (tmp_path / "run/source-only/evaluation.json").exists()
    assert run(recipe_tree, tmp_path / "run").begun["source-only"] == "done"
    assert_same_weights(finished, tmp_path / "run")
    assert read_results(tmp_path / "run").stages["source-only"].targets["fog"].images == 4


@pytest.mark.parametrize("stage", ["r1-class", "r1-prototypes", "r2-distill"])
def test_stopped_politely_and_resumed(stage: str, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """Ctrl-C in a stage: the step is finished and saved; the same command ends with the same weights."""
    stopping = [Recorder(signal_at(stage, 0, signal.SIGINT)), JSONLCallback()]
    assert not run_recipe(parse_recipe(recipe_tree), tmp_path / "run", stopping)
    recorder = run(recipe_tree, tmp_path / "run")
    assert (recorder.begun[stage], recorder.reasons[stage]) == ("resume", "from step 1")
    assert_same_weights(finished, tmp_path / "run")
    metrics = (tmp_path / "run" / "r2-distill" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics][-1] == 4


@pytest.mark.parametrize("step", range(1, 5))
def test_a_prototype_pass_goes_on_where_it_was(step: int, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """5 batches, each seen by both paths."""
    recipe_tree["training"]["log_every"] = 1
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/r1-prototypes/done.json").unlink()
    at = signal_at("r1-prototypes", step, signal.SIGINT)
    assert not run_recipe(parse_recipe(recipe_tree), tmp_path / "run", [Recorder(at)], only="r1-prototypes")
    state = load_checkpoint(tmp_path / "run/r1-prototypes/state.pt")
    assert state.step == step
    recorder = run(recipe_tree, tmp_path / "run", only="r1-prototypes")
    assert recorder.reasons["r1-prototypes"] == f"from step {step}"
    for path in ("r1-cut", "r1-class"):
        name = f"r1-prototypes/{path}.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()
    assert json.loads((tmp_path / "run/r1-prototypes/done.json").read_text())["steps"] == 5


class TestExtend:
    """``stages.NAME.extend``: the finished stage stays, a further one goes on from its model."""

    @pytest.fixture
    def tree(self, recipe_tree: dict) -> dict:
        stages = {"r2-distill": {"extend": 4}, "r2-distill-extended": {"learning_rate": 1e-6}}
        return {**recipe_tree, "stages": stages}

    @pytest.fixture
    def copied(self, finished: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(finished, tmp_path / "run"))

    def test_a_finished_stage_goes_on(self, finished: Path, copied: Path, tree: dict, tmp_path: Path) -> None:
        recorder = run(tree, copied)
        assert {stage: action for stage, action in recorder.begun.items() if action != "done"} == {
            "r2-distill-extended": "run"
        }
        assert recorder.reasons["r2-distill-extended"] == "not done yet, goes on from r2-distill"
        assert_same_weights(finished, copied)
        longer = weights(copied, "r2-distill-extended")
        assert all(torch.equal(value, longer[name]) for name, value in weights(copied, ".").items())
        name = "head.classifier.weight"
        moved = longer[name] - weights(copied, "r2-distill")[name]
        assert 0 < moved.abs().max() < 1e-4, "from the finished model, at a rate of 1e-5 for the head"
        results = read_results(copied)
        assert results.final == "r2-distill-extended"
        assert results.stages["r2-distill-extended"].steps == 4
        assert results.stages["r2-distill-extended"].label_free.keys() == results.stages["r2-distill"].label_free.keys()
        assert not copied.with_name("run.1").exists()

        # Half way through, after r2-distill in the same start: the same weights.
        shutil.copytree(finished, tmp_path / "again")
        shutil.rmtree(tmp_path / "again/r2-distill")
        at = signal_at("r2-distill-extended", 0, signal.SIGINT)
        assert not run_recipe(parse_recipe(tree), tmp_path / "again", [Recorder(at)])
        assert run(tree, tmp_path / "again").reasons["r2-distill-extended"] == "from step 1"
        assert_same_weights(copied, tmp_path / "again", ["r2-distill", "r2-distill-extended"])

    def test_later_stages_read_the_extension(self, copied: Path, recipe_tree: dict) -> None:
        recipe_tree["stages"] = {"r1-distill": {"extend": 2}}
        statuses = {name: item.status for name, item in planned(recipe_tree, copied).items()}
        assert statuses["r1-distill"].action == "done"
        assert statuses["r2-cut"].reason == "its input r1-distill-extended changed"
        assert run(recipe_tree, copied, until="r2-cut").begun["r1-distill-extended"] == "run"
        assert (copied.with_name("run.1") / "r2-distill/done.json").is_file(), "what is replaced is kept"

    def test_the_plan_says_how_to_go_on(self, copied: Path, recipe_tree: dict) -> None:
        recipe_tree["stages"] = {"r2-distill": {"steps": 6}}
        reason = planned(recipe_tree, copied)["r2-distill"].status.reason
        assert reason == "changed: training.steps 4 -> 6 (stages.r2-distill.extend=2 goes on from what is done)"
        recipe_tree["stages"] = {"r2-distill": {"steps": 3}}
        assert planned(recipe_tree, copied)["r2-distill"].status.reason == "changed: training.steps 4 -> 3"


def test_scaled_losses_resume_exactly(recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With float16 the loss scale is part of the state: here it was halved before the stop."""
    tree = {**recipe_tree, "training": recipe_tree["training"] | {"precision": "float16"}}
    recipe = parse_recipe(tree)
    monkeypatch.setattr("domainbridge.training.amp.FIRST_SCALE", 2.0**30)  # overflows at once
    assert run_recipe(recipe, tmp_path / "whole", until="source-only")
    stopping = Recorder(signal_at("source-only", 0, signal.SIGINT))
    assert not run_recipe(recipe, tmp_path / "run", [stopping], until="source-only")
    state = load_checkpoint(tmp_path / "run/source-only/state.pt")
    assert state.scale["value"] < 2.0**30
    assert run_recipe(recipe, tmp_path / "run", until="source-only")
    assert_same_weights(tmp_path / "whole", tmp_path / "run", ["source-only"])


def _run_and_die(tree: dict[str, Any], folder: str, stage: str, step: int) -> None:
    """In a child process: die by SIGKILL, without warning."""
    tree["training"]["log_every"] = 1
    run_recipe(parse_recipe(tree), Path(folder), [Recorder(signal_at(stage, step, signal.SIGKILL)), JSONLCallback()])


@pytest.mark.parametrize(
    ("stage", "step"), [("r1-class", 3), ("r1-prototypes", 0), ("r2-distill", 1), ("source-only", 2)]
)
def test_killed_and_started_again(stage: str, step: int, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """kill -9 inside a path, between stages, inside distillation: the same weights, bit for bit."""
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_die, args=(recipe_tree, str(tmp_path / "run"), stage, step)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    run(recipe_tree, tmp_path / "run")
    assert_same_weights(finished, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.tmp")), "temporary files of the killed process are swept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_the_whole_group_saves_and_goes_on(
    number: signal.Signals, finished: Path, recipe_tree: dict, tmp_path: Path
) -> None:
    """Terminals, torchrun and systemd signal loader processes too."""
    recipe_tree["training"] |= {"steps": 100_000, "checkpoint_every": 100_000, "log_every": 1}
    recipe_tree["runtime"]["num_workers"] = 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe_tree))
    command = [sys.executable, "-m", "domainbridge", "run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    stage = tmp_path / "run/source-only"
    deadline = time.monotonic() + 120
    while not (stage / "metrics.jsonl").exists() or not (stage / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 1, errors
    assert "the same command goes on from here" in errors
    saved = load_checkpoint(stage / "state.pt").step
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == saved > 0


def test_a_changed_key_reruns_its_stage_and_the_descendants_only(
    finished: Path, recipe_tree: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe_tree["stages"] = {"r2-class": {"learning_rate": 5e-4}}
    again = planned(recipe_tree, folder)
    changed = {"r2-class", "r2-prototypes", "r2-distill"}
    assert {name for name, item in again.items() if item.open} == changed
    assert "training.learning_rate 0.0001 -> 0.0005" in again["r2-class"].status.reason
    assert "r2-class" in again["r2-prototypes"].status.reason
    before = {name: (folder / name / "done.json").stat().st_mtime_ns for name in STAGES}
    recorder = run(recipe_tree, folder)
    assert {name for name, action in recorder.begun.items() if action != "done"} == changed
    after = {name: (folder / name / "done.json").stat().st_mtime_ns for name in STAGES}
    assert {name for name in STAGES if after[name] != before[name]} == changed


def test_files_that_cannot_be_listed_are_not_called_changed(finished: Path, recipe_tree: dict) -> None:
    nodes = stage_graph(parse_recipe(recipe_tree | {"data_root": "/nowhere"}), None)
    (first, *_) = plan(nodes, finished)
    assert "files of targets.fog (not compared: the data has problems)" in first.status.reason
    assert "names, number or contents" not in first.status.reason


def test_scoring_changes_rescore_without_training(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe_tree["evaluation"] = {"exclude_classes": ["box"]}
    assert set(run(recipe_tree, folder).begun.values()) == {"done"}
    fog = json.loads((folder / "results.json").read_text())["stages"]["r2-distill"]["targets"]["fog"]
    kept = [fog["iou"][name] for name in ("ground", "sky") if fog["iou"][name] is not None]
    assert fog["miou"] == pytest.approx(sum(kept) / len(kept))


def test_only_needs_its_inputs(recipe_tree: dict, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="r1-cut, r1-class"):
        run(recipe_tree, tmp_path / "run", only="r1-prototypes")
    with pytest.raises(RecipeError, match="this recipe's stages are"):
        run(recipe_tree, tmp_path / "run", until="r9-cut")
    assert not (tmp_path / "run").exists()


def test_a_foreign_run_folder_is_left_alone(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    recipe_tree["name"] = "another"
    with pytest.raises(RunFolderError, match="belongs to recipe 'tiny'"):
        run(recipe_tree, finished)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear Sir")
    with pytest.raises(RunFolderError, match="not a run folder"):
        run(recipe_tree, tmp_path / "letters")


def test_a_non_finite_loss_stops_before_the_optimizer_moves(recipe_tree: dict, tmp_path: Path) -> None:
    recipe_tree["training"] |= {"learning_rate": 1e30, "checkpoint_every": 1, "log_every": 1, "warmup_steps": 0}
    with pytest.raises(
        TrainingError, match=r"stage source-only, step \d+: the loss \(source\) or its gradient is not finite"
    ):
        run(recipe_tree, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "source-only" / "state.pt", weights_only=True)
    assert state["step"] >= 1
    assert not (tmp_path / "run" / "source-only" / "done.json").exists()


def test_two_processes_cannot_share_a_run(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    import fcntl

    with (finished / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="another process"):
            run(recipe_tree, finished)


@pytest.mark.parametrize(
    "change",
    [
        {"distillation": {"mode": "soft"}},
        {"distillation": {"prototypes": False}},
        {"distillation": {"rectify": "logits", "weight_by_confidence": True}},
        {"fidelity": "published"},
        {"sampling": {"rare_classes": True}},
        {"self_training": {"teacher_statistics": "student"}},
        {"training": {"steps": 2, "batch_size": 2, "precision": "bfloat16"}},
        {"training": {"steps": 2, "batch_size": 2, "adapt_batchnorm": "target", "activation_checkpointing": True}},
        {"training": {"steps": 2, "batch_size": 2, "precision": "float16", "activation_checkpointing": True}},
        {"model": {"backbone": "test_resnet", "output_stride": 32, "head": {"kind": "deeplabv3plus", "channels": 16}}},
        {"evaluation": {"mode": "slide", "window": [24, 24], "flip": True, "scales": [0.75, 1.5]}},
    ],
    ids=lambda change: "-".join(f"{key}" for key in change),
)
def test_variants_run(change: dict, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """Each trains every stage of a round; the student moves, its losses and scores are finite."""
    tree = {**recipe_tree, "rounds": 1, "source_only": False, **change}
    tree["training"] = {**tree["training"], "steps": 2}
    run(tree, tmp_path / "run")
    fog = read_results(tmp_path / "run").stages["r1-distill"].targets["fog"]
    assert fog.images == 4
    assert fog.miou is not None
    assert 0 <= fog.miou <= 100
    for stage in ("r1-cut", "r1-class", "r1-distill"):
        (line,) = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        assert all(value >= 0 for value in json.loads(line)["losses"].values())
        values = weights(tmp_path / "run", stage)
        assert all(value.isfinite().all() for value in values.values())
    parts = [weights(tmp_path / "run", stage)["head.classifier.weight"] for stage in ("r1-cut", "r1-class")]
    assert not torch.equal(*parts)


def test_a_finished_stage_leaves_no_network_behind(recipe_tree: dict, tmp_path: Path) -> None:
    """Without Python's own collections: what is still alive would fill a GPU during the next stage."""

    class Counter(NullCallback):
        def __init__(self) -> None:
            self.alive: dict[str, int] = {}

        def stage_begins(self, item: PlannedStage) -> None:
            self.alive[item.name] = sum(type(part) is Segmenter for part in gc.get_objects())

    recipe_tree["rounds"] = 1
    recipe_tree["training"] |= {"steps": 1, "activation_checkpointing": True}
    counter = Counter()
    gc.collect()
    gc.disable()
    try:
        before = sum(type(part) is Segmenter for part in gc.get_objects())
        assert run_recipe(parse_recipe(recipe_tree), tmp_path / "run", [counter])
    finally:
        gc.enable()
    del counter.alive["source-only"]  # the check before the first stage builds networks too
    assert set(counter.alive) == {"r1-cut", "r1-class", "r1-prototypes", "r1-distill"}
    assert set(counter.alive.values()) == {before}


def test_self_training_is_a_method_of_its_own(recipe_tree: dict, tmp_path: Path) -> None:
    tree = {key: value for key, value in recipe_tree.items() if key != "prototypes"}
    tree |= {"method": "self-training", "mixing": "class", "warm_start": True}
    assert run(tree, tmp_path / "run").begun == {"source-only": "run", "self-training": "run"}
    results = read_results(tmp_path / "run")
    assert results.final == "self-training"
    assert results.stages["self-training"].targets["fog"].images == 4
    last, published = weights(tmp_path / "run", "self-training"), weights(tmp_path / "run", ".")
    assert all(torch.equal(last[name], published[name]) for name in last)
    assert not torch.equal(
        last["head.classifier.weight"], weights(tmp_path / "run", "source-only")["head.classifier.weight"]
    )


def test_statistics_of_the_target_change_adapted_models_only(recipe_tree: dict, tmp_path: Path) -> None:
    tree = {**recipe_tree, "rounds": 1}
    run(tree, tmp_path / "run", until="r1-cut")
    before = {stage: weights(tmp_path / "run", stage) for stage in ("source-only", "r1-cut")}
    tree["training"] = {**tree["training"], "adapt_batchnorm": "target"}
    again = run(tree, tmp_path / "run", until="r1-cut")
    assert again.begun == {"source-only": "done", "r1-cut": "run"}
    assert "adapt_batchnorm" in again.reasons["r1-cut"]
    after = weights(tmp_path / "run", "r1-cut")
    changed = {name.rpartition(".")[2] for name in after if not after[name].equal(before["r1-cut"][name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


class Listed:
    """A data set that remembers which samples were read."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        self.read.append(index)
        return self.dataset[index]

    def load_label(self, index: int) -> Any:
        return self.dataset.load_label(index)


def crops_for_batchnorm(tree: dict[str, Any], batch_size: int) -> tuple[list[int], list[int]]:
    """(sizes of the batches, samples read) of the statistics that r1-cut ends with."""
    recipe = parse_recipe(tree)
    data = open_data(recipe)
    target = Listed(data.target)
    stage = next(stage for stage in stages_of(recipe) if stage.name == "r1-cut")
    assert isinstance(stage, TrainingStage)
    batches = batchnorm_batches(
        recipe,
        stage,
        batch_size,
        training_data(recipe, data, data.source, target),
        resolve_runtime("cpu"),
    )
    return [len(image) for image in batches], target.read


@pytest.mark.parametrize("batch_size", [2, 5])
def test_statistics_are_of_batches_as_large_as_in_training(batch_size: int, recipe_tree: dict, tmp_path: Path) -> None:
    """Of three images one batch of two; one of five shows some of them twice."""
    (tmp_path / "three.txt").write_text("000\n001\n002\n")
    tree = {**recipe_tree, "targets": [{**recipe_tree["targets"][0], "split": str(tmp_path / "three.txt")}]}
    assert crops_for_batchnorm(tree, batch_size)[0] == [batch_size]


def test_statistics_draw_targets_as_training_does(recipe_tree: dict, tmp_path: Path) -> None:
    """A target of 2 images and one of 10, equally often: half of the crops are of the small one."""
    (target,) = recipe_tree["targets"]
    (tmp_path / "two.txt").write_text("000\n001\n")
    small = {key: value for key, value in target.items() if key != "validation"}
    tree = {**recipe_tree, "targets": [target, {**small, "name": "small", "split": str(tmp_path / "two.txt")}]}
    _, read = crops_for_batchnorm({**tree, "sampling": {"domain_temperature": 0}}, 2)
    assert len(read) == 12
    assert sum(index >= 10 for index in read) == 6


def test_shards_train_the_same_models(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    recipe = parse_recipe(recipe_tree)
    pack_domains(recipe, open_data(recipe), tmp_path / "shards", 20_000, lambda _: None)
    run(
        {**recipe_tree, **yaml.safe_load(recipe_lines(recipe, tmp_path / "shards"))}, tmp_path / "run", until="r1-class"
    )
    assert_same_weights(finished, tmp_path / "run", ["source-only", "r1-cut", "r1-class"])
    scores = [json.loads((folder / "r1-class/evaluation.json").read_text()) for folder in (finished, tmp_path / "run")]
    assert scores[0]["targets"] == scores[1]["targets"]


def test_several_sources_and_targets(generated_data: Path, recipe_tree: dict, tmp_path: Path) -> None:
    second = {**recipe_tree["sources"][0], "name": "again"}
    recipe_tree["sources"].append(second)
    recipe_tree["targets"].append({"name": "unlabeled", "root": "target", "images": "images"})
    recipe_tree |= {"rounds": 1, "source_only": False}
    run(recipe_tree, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["stages"]["r1-distill"]["targets"]) == ["fog"]
