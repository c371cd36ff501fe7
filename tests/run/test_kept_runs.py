"""Nothing computed is lost: changed runs move the old folder away, fitting stages come back, damage is told."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.cli.app import app
from domainbridge.errors import RunFolderError
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.kept_runs import recover
from domainbridge.run.run import run_recipe
from domainbridge.training.checkpoint import load_checkpoint, save_checkpoint

ROUND = ["source-only", "r1-cut", "r1-class", "r1-prototypes", "r1-distill"]


class Listener(NullCallback):
    """Remembers what was said and done; sends a signal when a stage begins."""

    def __init__(self, stop_at: str = "", number: signal.Signals = signal.SIGINT) -> None:
        self.messages: list[str] = []
        self.begun: dict[str, str] = {}
        self.stop_at, self.number = stop_at, number

    def message(self, text: str) -> None:
        self.messages.append(text)

    def stage_begins(self, planned: Any) -> None:
        self.begun[planned.name] = planned.status.action
        if planned.name == self.stop_at:
            os.kill(os.getpid(), self.number)


def start(tree: dict[str, Any], folder: Path, stop_at: str = "", **options: Any) -> Listener:
    listener = Listener(stop_at)
    finished = run_recipe(parse_recipe(tree), folder, [listener, JSONLCallback()], **options)
    assert finished is not bool(stop_at)
    return listener


def contents(folder: Path) -> dict[str, bytes]:
    """Every result of a run, byte for byte."""
    kept = (".safetensors", ".json", ".jsonl", ".pt")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in kept and path.name not in ("environment.json", "data-check.json")
    }


def stage_contents(folder: Path, stages: list[str]) -> dict[str, bytes]:
    return {name: content for name, content in contents(folder).items() if name.split("/")[0] in stages}


@pytest.fixture
def tree(recipe_tree: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe of one round over a copy of the data, which a test may edit."""
    shutil.copytree(recipe_tree["data_root"], tmp_path / "data")
    return {**recipe_tree, "rounds": 1, "data_root": str(tmp_path / "data"), "sampling": {"rare_classes": True}}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> Path:
    from tiny_domain import RECIPE

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    recipe = {**RECIPE, "rounds": 1, "data_root": str(generated_data), "sampling": {"rare_classes": True}}
    start(recipe, folder)
    return folder


@pytest.fixture
def finished(once: Path, tmp_path: Path) -> Path:
    shutil.copytree(once, tmp_path / "runs/tiny")
    return tmp_path / "runs/tiny"


def test_a_key_typed_once_moves_the_old_run_and_leaving_it_out_brings_all_back(
    tree: dict[str, Any], finished: Path
) -> None:
    before = contents(finished)
    listener = start({**tree, "seed": 4}, finished, until="source-only")
    (line,) = [text for text in listener.messages if "is moved to" in text]
    assert "tiny.1" in line
    assert "seed 3 -> 4" in line
    assert listener.begun == {"source-only": "run"}
    kept = finished.with_name("tiny.1")
    assert contents(kept) == before
    assert not (finished / "model").exists(), "the final model is of the other run"
    assert not (finished / "r1-cut").exists()

    again = start(tree, finished)
    assert set(again.begun.values()) == {"done"}
    assert any("taken over from" in text and "tiny.1" in text for text in again.messages)
    assert stage_contents(finished, [*ROUND, "model"]) == {
        name: content for name, content in before.items() if name.split("/")[0] in [*ROUND, "model"]
    }
    assert finished.with_name("tiny.2").is_dir(), "seed 4's source-only is kept as well"


def test_unchanged_stages_are_carried_over_bit_for_bit(tree: dict[str, Any], finished: Path) -> None:
    before = stage_contents(finished, ROUND)
    unchanged = ["source-only", "r1-cut"]
    listener = start({**tree, "stages": {"r1-class": {"learning_rate": 5e-4}}}, finished)
    assert [name for name, action in listener.begun.items() if action == "done"] == unchanged
    assert stage_contents(finished.with_name("tiny.1"), ROUND) == before
    kept = {name: content for name, content in before.items() if name.split("/")[0] in unchanged}
    assert stage_contents(finished, unchanged) == kept
    assert stage_contents(finished, ["r1-class"]) != stage_contents(finished.with_name("tiny.1"), ["r1-class"])
    shared = "source-only/model/model.safetensors"
    assert (finished / shared).samefile(finished.with_name("tiny.1") / shared), "no second copy on the disk"


def test_a_half_done_stage_is_kept_too(tree: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "runs/tiny"
    start(tree, folder, "source-only")
    assert load_checkpoint(folder / "source-only/state.pt").step == 1
    start({**tree, "seed": 4}, folder, until="source-only")
    assert load_checkpoint(tmp_path / "runs/tiny.1/source-only/state.pt").step == 1


def test_a_stop_before_the_first_step_keeps_no_empty_run(tree: dict[str, Any], finished: Path) -> None:
    start({**tree, "seed": 4}, finished, "source-only", until="source-only")
    shutil.rmtree(finished / "source-only")
    start(tree, finished)
    assert [path.name for path in sorted(finished.parent.iterdir())] == ["tiny", "tiny.1"]


def edit_labels(data: Path) -> None:
    for path in (data / "source/labels").iterdir():
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def edit_one_label(data: Path) -> None:
    path = data / "source/labels/003.png"
    status, content = path.stat(), path.read_bytes()
    other = (data / "source/labels/004.png").read_bytes()
    path.write_bytes(other[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def remove_an_image(data: Path) -> None:
    (data / "target/images/005.png").unlink()


@pytest.mark.parametrize("change", [edit_labels, edit_one_label, remove_an_image])
def test_changed_data_is_noticed_and_loses_nothing(
    change: Callable[[Path], None], tree: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    before = contents(finished)
    shutil.copytree(tmp_path / "data", tmp_path / "good")
    change(tmp_path / "data")
    recipe = parse_recipe(tree)
    planned = plan(stage_graph(recipe, open_data(recipe)), finished)
    assert all(item.open for item in planned)
    assert "files" in planned[0].status.reason
    start(tree, finished, until="source-only")
    assert contents(finished.with_name("tiny.1")) == before
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "good").rename(tmp_path / "data")
    assert set(start(tree, finished).begun.values()) == {"done"}


def test_other_validation_masks_and_scales_are_scored_again_and_train_nothing(
    tree: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    before = json.loads((finished / "results.json").read_text())["stages"]["r1-distill"]["targets"]["fog"]
    masks = sorted((tmp_path / "data/target-val/labels").iterdir())
    shutil.copyfile(masks[1], masks[0])
    assert set(start(tree, finished).begun.values()) == {"done"}
    after = json.loads((finished / "results.json").read_text())["stages"]["r1-distill"]["targets"]["fog"]
    assert after != before
    scores = finished / "r1-distill/evaluation.json"
    rule = json.loads(scores.read_text())["fingerprint"]
    for scales, same in (([1], True), ([0.5, 1], False)):
        assert set(start({**tree, "evaluation": {"scales": scales}}, finished).begun.values()) == {"done"}
        assert (json.loads(scores.read_text())["fingerprint"] == rule) == same
    assert not finished.with_name("tiny.1").exists()


def test_plan_says_what_a_run_moves(tree: dict[str, Any], finished: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    arguments = ["plan", str(tmp_path / "tiny.yaml"), "--out", str(finished)]
    unchanged, changed = (CliRunner().invoke(app, [*arguments, *more]) for more in ([], ["seed=4"]))
    assert "is moved" not in unchanged.output
    assert f"{finished} is moved to {finished}.1" in changed.output.replace("\n", "")
    assert not finished.with_name("tiny.1").exists()


class TestForeignFiles:
    def test_a_folder_with_a_recipe_is_no_run_folder(self, tree: dict[str, Any], tmp_path: Path) -> None:
        folder = tmp_path / "mine"
        (folder / "source-only").mkdir(parents=True)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
        (folder / "source-only/precious.txt").write_text("years of work")
        with pytest.raises(RunFolderError, match=r"mine: holds a recipe\.yaml but is not a run folder"):
            start(tree, folder)
        assert sorted(path.name for path in folder.rglob("*")) == ["precious.txt", "recipe.yaml", "source-only"]

    def test_a_stage_that_begins_again_leaves_foreign_files(self, tree: dict[str, Any], finished: Path) -> None:
        (finished / "source-only/precious.txt").write_text("years of work")
        (finished / "source-only/done.json").unlink()
        start(tree, finished, until="source-only")
        assert (finished / "source-only/precious.txt").read_text() == "years of work"
        start({**tree, "seed": 4}, finished, until="source-only")
        assert (finished.with_name("tiny.1") / "source-only/precious.txt").read_text() == "years of work"

    def test_a_run_folder_among_the_images_is_refused(self, tree: dict[str, Any], tmp_path: Path) -> None:
        images = tmp_path / "data/target/images"
        with pytest.raises(RunFolderError, match=r"run: cannot be the run folder(.|\n)*target/images"):
            start(tree, images / "run")
        assert not (images / "run").exists()


class TestDamage:
    """Each kind of damage to a finished run: one message that names the file, or right."""

    def refused(self, tree: dict[str, Any], folder: Path, *names: str, **options: Any) -> None:
        before = contents(folder)
        with pytest.raises(RunFolderError) as caught:
            start(tree, folder, **options)
        assert all(name in str(caught.value) for name in names), str(caught.value)
        assert contents(folder) == before

    def test_a_damaged_final_model_is_not_published(self, tree: dict[str, Any], finished: Path) -> None:
        path = finished / "r1-distill/model/model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        self.refused(tree, finished, "r1-distill/model/model.safetensors", "done.json")

    def test_missing_inputs_are_listed_together(self, tree: dict[str, Any], finished: Path) -> None:
        shutil.rmtree(finished / "r1-cut/model")
        (finished / "r1-prototypes/r1-class.safetensors").unlink()
        changed = {**tree, "stages": {"r1-distill": {"learning_rate": 5e-4}}}
        self.refused(changed, finished, "r1-cut/model", "r1-prototypes/r1-class.safetensors")

    def test_inputs_that_nobody_needs_may_be_gone(self, tree: dict[str, Any], finished: Path) -> None:
        shutil.rmtree(finished / "r1-cut/model")
        assert set(start(tree, finished).begun.values()) == {"done"}

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("done.json", {"seconds": None}),
            ("done.json", {"seconds": "x"}),
            ("done.json", {"steps": "x"}),
            ("done.json", {"values": []}),
            ("done.json", {"fingerprint": 7}),
        ],
    )
    def test_a_damaged_mark_keeps_the_results(
        self, name: str, content: dict[str, Any], tree: dict[str, Any], finished: Path
    ) -> None:
        path = finished / "source-only" / name
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
        before = contents(finished)
        listener = start(tree, finished, until="source-only")
        assert listener.begun == {"source-only": "run"}
        assert contents(finished.with_name("tiny.1")) == before
        model = "source-only/model/model.safetensors"
        assert (finished / model).read_bytes() == before[model], "computed again, the same"

    @pytest.mark.parametrize("content", [{"targets": None}, {"targets": []}, {"targets": {"fog": {"x": 1}}}])
    def test_damaged_scores_are_made_again(self, content: object, tree: dict[str, Any], finished: Path) -> None:
        path = finished / "r1-distill/evaluation.json"
        before = path.read_bytes()
        path.write_text(json.dumps(json.loads(before) | content))
        start(tree, finished)
        assert path.read_bytes() == before

    def test_a_deep_recipe_in_the_run_folder(self, tree: dict[str, Any], finished: Path) -> None:
        (finished / "recipe.yaml").write_text("[" * 1000 + "]" * 1000)
        self.refused(tree, finished, "recipe.yaml")

    def test_a_file_in_the_place_of_a_stage(self, tree: dict[str, Any], finished: Path) -> None:
        shutil.rmtree(finished / "r1-cut")
        (finished / "r1-cut").write_text("x")
        self.refused(tree, finished, "r1-cut")

    def test_a_checkpoint_of_other_shapes(self, tree: dict[str, Any], tmp_path: Path) -> None:
        start(tree, tmp_path / "run", "source-only")
        path = tmp_path / "run/source-only/state.pt"
        state = load_checkpoint(path)
        state.student["head.classifier.bias"] = torch.zeros(9)
        save_checkpoint(path, state)
        with pytest.raises(RunFolderError, match=r"state\.pt: does not fit stage source-only"):
            start(tree, tmp_path / "run")

    def test_metrics_with_damaged_lines_keep_a_copy(self, tree: dict[str, Any], tmp_path: Path) -> None:
        start(tree, tmp_path / "run", "source-only")
        path = tmp_path / "run/source-only/metrics.jsonl"
        damaged = b"\xff\xfe\n" + path.read_bytes()
        path.write_bytes(damaged)
        start(tree, tmp_path / "run", until="source-only")
        assert path.with_name("metrics.damaged.jsonl").read_bytes() == damaged
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()][-1] == 4

    def test_leftovers_of_a_finished_stage_are_swept(self, tree: dict[str, Any], finished: Path) -> None:
        for name in ("state.pt", "started.json"):
            (finished / "source-only" / name).write_text("{}")
        start(tree, finished)
        assert not (finished / "source-only/state.pt").exists()
        assert not (finished / "source-only/started.json").exists()

    def test_another_torch_is_said(self, tree: dict[str, Any], tmp_path: Path) -> None:
        start(tree, tmp_path / "run", "source-only")
        path = tmp_path / "run/environment.json"
        environment = json.loads(path.read_text())
        environment["packages"]["torch"], environment["threads"] = "1.0", 64
        path.write_text(json.dumps(environment))
        messages = start(tree, tmp_path / "run", until="source-only").messages
        assert any("torch 1.0 -> " in text and "threads 64 -> 1" in text for text in messages)


def _die_between_the_renames(tree: dict[str, Any], folder: str) -> None:
    """In a child process: the old folder has moved, the new one is not in its place yet."""
    renames: list[object] = []

    def hook(event: str, given: tuple[object, ...]) -> None:
        if event == "os.rename" and "tiny" in str(given[1]) and "tmp" not in Path(str(given[1])).suffix:
            renames.append(given)
            if str(given[0]).endswith(".new"):
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run_recipe(parse_recipe(tree), Path(folder))


def test_a_crash_between_the_two_moves_loses_nothing(tree: dict[str, Any], finished: Path) -> None:
    before = contents(finished)
    changed = {**tree, "stages": {"r1-distill": {"learning_rate": 5e-4}}}
    process = multiprocessing.get_context("spawn").Process(
        target=_die_between_the_renames, args=(changed, str(finished))
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not finished.exists()
    assert contents(finished.with_name("tiny.1")) == before
    recover(finished)
    assert finished.is_dir()
    listener = start(changed, finished)
    assert listener.begun == {**dict.fromkeys(ROUND[:-1], "done"), "r1-distill": "run"}
    assert not list(finished.parent.glob(".*.new"))


def test_without_fcntl(tree: dict[str, Any], tmp_path: Path) -> None:
    """As on Windows: the module is not there."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    for verb, more in (("plan", []), ("run", ["--until", "source-only"])):
        arguments = ["domainbridge", verb, str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "run"), *more]
        code = (
            f"import sys; sys.modules['fcntl'] = None; sys.argv = {arguments}; from domainbridge.cli.app import run_app"
        )
        done = subprocess.run([sys.executable, "-c", code + "; run_app()"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/source-only/done.json").exists()
    assert not (tmp_path / "run/.lock.pid").exists()
