"""A whole run on generated images: stages, results, resuming, redoing."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from domainbridge.config.load import parse_recipe
from domainbridge.data import streams as streams_module
from domainbridge.errors import RecipeError, RunFolderError, TrainingError
from domainbridge.pipeline import results as results_module
from domainbridge.pipeline import stages as stage_module
from domainbridge.pipeline.datasets import open_data
from domainbridge.pipeline.execute import inspect_run, run_recipe
from domainbridge.pipeline.sharding import pack_domains, recipe_lines
from domainbridge.training.checkpoint import load_checkpoint

STAGES = ["source-only"] + [f"r{r}-{kind}" for r in (1, 2) for kind in ("cut", "class", "prototypes", "distil")]
TRAINED = [name for name in STAGES if "prototypes" not in name]


class Quiet:
    """A listener that remembers what began."""

    def __init__(self) -> None:
        self.begun: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def message(self, text: str) -> None: ...

    def stage_begins(self, stage: Any, verdict: Any) -> None:
        self.begun[stage.name] = verdict.action
        self.reasons[stage.name] = verdict.reason

    def progress(self, stage: str, progress: Any) -> None: ...

    def stage_scored(self, stage: Any, targets: Any) -> None: ...


def run(tree: dict[str, Any], folder: Path, **options: Any) -> Quiet:
    listener = Quiet()
    assert run_recipe(parse_recipe(tree), folder, listener, **options)
    return listener


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
    assert results["final"] == "r2-distil"
    for name in TRAINED:
        entry = results["stages"][name]
        assert entry["steps"] == 4
        fog = entry["targets"]["fog"]
        assert set(fog["iou"]) == {"ground", "box", "sky"}
        assert 0 <= fog["miou"] <= 100
        assert fog["images"] == 4
        lines = [json.loads(line) for line in (finished / name / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [2, 4]
        assert set(lines[0]) == {"step", "losses", "lr", "seconds"}
        assert not (finished / name / "state.pt").exists()
    assert weights(finished, ".")  # RUN/model, the final student
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["training"]["head_multiplier"] == 10
    assert json.loads((finished / "environment.json").read_text())["packages"]["torch"]


def test_the_final_model_is_the_last_student(finished: Path) -> None:
    final, last = weights(finished, "."), weights(finished, "r2-distil")
    assert all(torch.equal(final[name], last[name]) for name in last)


def test_a_second_run_does_nothing(finished: Path, recipe_tree: dict) -> None:
    before = (finished / "r2-distil" / "model" / "model.safetensors").stat().st_mtime_ns
    assert set(run(recipe_tree, finished).begun.values()) == {"done"}
    assert (finished / "r2-distil" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_stages_differ(finished: Path) -> None:
    for one, other in (("r1-cut", "r1-class"), ("r1-cut", "r2-cut"), ("r1-distil", "r2-distil")):
        name = "head.classifier.weight"
        assert not torch.equal(weights(finished, one)[name], weights(finished, other)[name])


@pytest.mark.parametrize("workers", [2])
def test_workers_do_not_change_the_result(workers: int, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    recipe_tree["runtime"]["workers"] = workers
    run(recipe_tree, tmp_path / "run", until="r1-cut")
    assert_same_weights(finished, tmp_path / "run", ["source-only", "r1-cut"])


def test_lossless_copies_do_not_change_the_result(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    with_cache = {**recipe_tree, "cache": {"folder": str(tmp_path / "copies")}}
    run(with_cache, tmp_path / "run", until="r1-class")
    assert_same_weights(finished, tmp_path / "run", ["source-only", "r1-cut", "r1-class"])
    assert list((tmp_path / "copies").glob("??/*.npy"))
    recipe = parse_recipe({**with_cache, "cache": {"folder": str(tmp_path / "copies"), "format": "jpeg"}})
    planned = inspect_run(recipe, open_data(recipe), tmp_path / "run")
    assert {item.verdict.action for item in planned} == {"run"}
    assert "cache" in planned[0].verdict.reason


def test_a_stop_is_heard_while_scoring(finished: Path, recipe_tree: dict, tmp_path: Path, monkeypatch: Any) -> None:
    """Between two images; the stage stays done, and the same command scores again and goes on."""
    original = results_module.score
    calls: list[str] = []

    def interrupted(*inputs: Any, progress: Any, **options: Any) -> Any:
        def heard() -> None:
            calls.append("image")
            os.kill(os.getpid(), signal.SIGTERM)
            progress()

        return original(*inputs, progress=heard, **options)

    monkeypatch.setattr(results_module, "score", interrupted)
    assert not run_recipe(parse_recipe(recipe_tree), tmp_path / "run", Quiet())
    assert calls == ["image"]
    assert not (tmp_path / "run/source-only/evaluation.json").exists()
    monkeypatch.undo()
    assert run(recipe_tree, tmp_path / "run").begun["source-only"] == "done"
    assert_same_weights(finished, tmp_path / "run")


@pytest.mark.parametrize("stage", ["r1-class", "r1-prototypes", "r2-distil"])
def test_stopped_politely_and_resumed(
    stage: str, finished: Path, recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a stage: the step is finished and saved; the same command ends with the same weights."""
    original = stage_module.run_stage

    def interrupted(planned: Any, context: Any, *, resume: bool) -> bool:
        if planned.name == stage:
            os.kill(os.getpid(), signal.SIGINT)
        return original(planned, context, resume=resume)

    monkeypatch.setattr("domainbridge.pipeline.execute.run_stage", interrupted)
    assert not run_recipe(parse_recipe(recipe_tree), tmp_path / "run", Quiet())
    monkeypatch.undo()
    listener = run(recipe_tree, tmp_path / "run")
    assert listener.begun[stage] == "resume"
    assert_same_weights(finished, tmp_path / "run")
    metrics = (tmp_path / "run" / "r2-distil" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics][-1] == 4


def test_scaled_losses_resume_exactly(recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With float16 the loss scale is part of the state: here it was halved before the stop."""
    tree = {**recipe_tree, "training": recipe_tree["training"] | {"precision": "float16"}}
    recipe = parse_recipe(tree)
    monkeypatch.setattr("domainbridge.training.loss_scale._FIRST", 2.0**30)  # overflows at once
    assert run_recipe(recipe, tmp_path / "whole", Quiet(), until="source-only")
    original = stage_module.run_stage

    def interrupted(planned: Any, context: Any, *, resume: bool) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return original(planned, context, resume=resume)

    with monkeypatch.context() as patch:
        patch.setattr("domainbridge.pipeline.execute.run_stage", interrupted)
        assert not run_recipe(recipe, tmp_path / "run", Quiet(), until="source-only")
    state = load_checkpoint(tmp_path / "run/source-only/state.pt")
    assert state.scale["value"] < 2.0**30
    assert run_recipe(recipe, tmp_path / "run", Quiet(), until="source-only")
    assert_same_weights(tmp_path / "whole", tmp_path / "run", ["source-only"])


def _run_and_die(tree: dict[str, Any], folder: str, marker: str) -> None:
    """In a child process: die by SIGKILL, without warning, when ``marker`` says so."""
    stage, _, step = marker.partition(":")
    if step:
        original = stage_module.fit

        def deadly(objective: Any, *arguments: Any, **named: Any) -> bool:
            plan = arguments[2]
            before = objective.before_step

            def count(number: int) -> None:
                if plan.stage == stage and number == int(step):
                    os.kill(os.getpid(), signal.SIGKILL)
                before(number)

            objective.before_step = count
            return original(objective, *arguments, **named)

        stage_module.fit = deadly

    class Killer(Quiet):
        def stage_begins(self, planned: Any, verdict: Any) -> None:
            if planned.name == stage and not step:
                os.kill(os.getpid(), signal.SIGKILL)

    run_recipe(parse_recipe(tree), Path(folder), Killer())


@pytest.mark.parametrize("marker", ["r1-class:3", "r1-prototypes", "r2-distil:1", "source-only:2"])
def test_killed_and_started_again(marker: str, finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    """kill -9 inside a path, between stages, inside distillation: the same weights, bit for bit."""
    process = multiprocessing.get_context("spawn").Process(
        target=_run_and_die, args=(recipe_tree, str(tmp_path / "run"), marker)
    )
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    run(recipe_tree, tmp_path / "run")
    assert_same_weights(finished, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_of_the_whole_group_saves_and_goes_on(
    number: signal.Signals, finished: Path, recipe_tree: dict, tmp_path: Path
) -> None:
    """Terminals, torchrun and systemd signal loader processes too."""
    recipe_tree["training"] |= {"steps": 100_000, "checkpoint_every": 100_000, "log_every": 1}
    recipe_tree["runtime"]["workers"] = 2
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
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1, said
    assert "the same command goes on from here" in said
    saved = load_checkpoint(stage / "state.pt").step
    steps = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == saved > 0


def test_a_changed_key_reruns_its_stage_and_the_descendants_only(
    finished: Path, recipe_tree: dict, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe_tree["stages"] = {"r2-class": {"learning_rate": 5e-4}}
    recipe = parse_recipe(recipe_tree)
    planned = {item.stage.name: item.verdict for item in inspect_run(recipe, open_data(recipe), folder)}
    changed = {"r2-class", "r2-prototypes", "r2-distil"}
    assert {name for name, verdict in planned.items() if verdict.action != "done"} == changed
    assert "training.learning_rate 0.0001 -> 0.0005" in planned["r2-class"].reason
    assert "r2-class" in planned["r2-prototypes"].reason
    before = {name: (folder / name / "done.json").stat().st_mtime_ns for name in STAGES}
    listener = run(recipe_tree, folder)
    assert {name for name, action in listener.begun.items() if action != "done"} == changed
    after = {name: (folder / name / "done.json").stat().st_mtime_ns for name in STAGES}
    assert {name for name in STAGES if after[name] != before[name]} == changed


def test_scoring_changes_rescore_without_training(finished: Path, recipe_tree: dict, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    recipe_tree["evaluation"] = {"exclude": ["box"]}
    assert set(run(recipe_tree, folder).begun.values()) == {"done"}
    fog = json.loads((folder / "results.json").read_text())["stages"]["r2-distil"]["targets"]["fog"]
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


def test_a_non_finite_loss_stops_before_the_optimiser_moves(recipe_tree: dict, tmp_path: Path) -> None:
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
        {"distillation": {"weights_on": "logits", "confidence_share": True}},
        {"fidelity": "published"},
        {"sampling": {"rare_classes": True}},
        {"self_training": {"teacher_statistics": "student"}},
        {"training": {"steps": 2, "batch_size": 2, "precision": "bfloat16"}},
        {"training": {"steps": 2, "batch_size": 2, "statistics": "target", "recompute": True}},
        {"training": {"steps": 2, "batch_size": 2, "precision": "float16", "recompute": True}},
        {"model": {"backbone": "test_resnet", "output_stride": 32, "head": {"kind": "deeplabv3plus", "channels": 16}}},
        {"evaluation": {"mode": "slide", "window": [24, 24], "flip": True}},
    ],
    ids=lambda change: "-".join(f"{key}" for key in change),
)
def test_variants_run(change: dict, recipe_tree: dict, tmp_path: Path) -> None:
    tree = {**recipe_tree, "rounds": 1, "source_only": False, **change}
    tree["training"] = {**tree["training"], "steps": 2}
    run(tree, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["stages"]["r1-distil"]["targets"]["fog"]["miou"] is not None


def test_statistics_of_the_target_change_adapted_models_only(recipe_tree: dict, tmp_path: Path) -> None:
    tree = {**recipe_tree, "rounds": 1}
    run(tree, tmp_path / "run", until="r1-cut")
    before = {stage: weights(tmp_path / "run", stage) for stage in ("source-only", "r1-cut")}
    tree["training"] = {**tree["training"], "statistics": "target"}
    again = run(tree, tmp_path / "run", until="r1-cut")
    assert again.begun == {"source-only": "done", "r1-cut": "run"}
    assert "statistics" in again.reasons["r1-cut"]
    after = weights(tmp_path / "run", "r1-cut")
    changed = {name.rpartition(".")[2] for name in after if not after[name].equal(before["r1-cut"][name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("batch_size", [2, 5])
def test_statistics_are_of_batches_as_large_as_in_training(
    batch_size: int, recipe_tree: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three images one batch of two; one of five shows some of them twice."""
    sizes: list[int] = []
    monkeypatch.setattr(
        "domainbridge.pipeline.stages.retake_statistics",
        lambda network, images: sizes.extend(len(image) for image in images),
    )
    tree = {**recipe_tree, "rounds": 1, "source_only": False}
    target = Path(recipe_tree["data_root"]) / recipe_tree["targets"][0]["root"]
    stems = sorted(path.stem for path in (target / "images").iterdir())
    (tmp_path / "three.txt").write_text("\n".join(stems[:3]))
    tree["targets"] = [{**recipe_tree["targets"][0], "split": str(tmp_path / "three.txt")}]
    tree["training"] = {**tree["training"], "steps": 1, "batch_size": batch_size, "statistics": "target"}
    run(tree, tmp_path / "run", until="r1-cut")
    assert sizes == [batch_size]


def test_statistics_draw_targets_as_training_does(recipe_tree: dict, tmp_path: Path, monkeypatch: Any) -> None:
    """A target of 2 images and one of 10, equally often: half of the crops are of the small one."""
    seen: list[int] = []
    original = streams_module.TargetCrops.__getitem__

    def noted(crops: Any, step: int) -> Any:
        if crops.stage.endswith("statistics"):
            places = range(step * crops.batch_size, (step + 1) * crops.batch_size)
            seen.extend(crops.order.index(crops.seed, crops.stage, place) for place in places)
        return original(crops, step)

    monkeypatch.setattr(streams_module.TargetCrops, "__getitem__", noted)
    (target,) = recipe_tree["targets"]
    (tmp_path / "two.txt").write_text("000\n001\n")
    small = {key: value for key, value in target.items() if key != "validation"}
    tree = {**recipe_tree, "targets": [target, {**small, "name": "small", "split": str(tmp_path / "two.txt")}]}
    tree |= {"rounds": 1, "source_only": False, "sampling": {"balance": 0}}
    tree["training"] = {**tree["training"], "steps": 1, "statistics": "target"}
    run(tree, tmp_path / "run", until="r1-cut")
    assert len(seen) == 12
    assert sum(index >= 10 for index in seen) == 6


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
    recipe_tree["targets"].append({"name": "unlabelled", "root": "target", "images": "images"})
    recipe_tree |= {"rounds": 1, "source_only": False}
    run(recipe_tree, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["stages"]["r1-distil"]["targets"]) == ["fog"]
