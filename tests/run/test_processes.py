"""Two processes (gloo) that train one network: the same batch, the same losses; a killed one; resuming with one."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from domainbridge.errors import RecipeError
from domainbridge.runtime.distributed import Processes
from domainbridge.types import Rows
from tiny_domain import RECIPE

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def together(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=240, check=False)


def training_processes(torchrun: subprocess.Popen[str], progress: list[Path]) -> list[int]:
    """The processes of torchrun, once each of the stages has saved a checkpoint; ``progress``: their started.json."""
    deadline = time.monotonic() + 120
    while not all(file.exists() and json.loads(file.read_text())["step"] >= 2 for file in progress):
        assert time.monotonic() < deadline
        assert torchrun.poll() is None
        time.sleep(0.01)
    children = subprocess.run(["pgrep", "-P", str(torchrun.pid)], capture_output=True, text=True, check=True)
    return [int(number) for number in children.stdout.split()]


@pytest.fixture
def recipe(tmp_path: Path, generated_data: Path) -> Path:
    """One round; long enough stages to be killed inside."""
    tree = {**RECIPE, "data_root": str(generated_data), "rounds": 1}
    tree["training"] = {**RECIPE["training"], "steps": 8, "log_every": 1}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_losses_and_gradients_equal_those_of_one_process(generated_data: Path, tmp_path: Path) -> None:
    script = TESTS / "run/equal_losses.py"
    alone = [sys.executable, str(script), str(generated_data), str(tmp_path / "one.json")]
    subprocess.run(alone, env=ENVIRONMENT, check=True, timeout=240)
    result = together(script, generated_data, tmp_path / "two.json")
    assert result.returncode == 0, result.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert len(one["losses"]) == len(two["losses"]) == 20
    for expected, losses in zip(one["losses"], two["losses"], strict=True):
        assert losses == {name: pytest.approx(value, abs=1e-5) for name, value in expected.items()}
    assert any(loss["bridged"] > 0 for loss in one["losses"])
    assert list(one["gradients"]) == list(two["gradients"])
    for name, gradient in one["gradients"].items():
        assert two["gradients"][name] == pytest.approx(gradient, abs=1e-6), name
    assert any(abs(value) > 1e-3 for gradient in one["gradients"].values() for value in gradient)


def test_batch_statistics_are_those_of_all_processes_rows(tmp_path: Path) -> None:
    result = together(TESTS / "run/shared_statistics.py", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    differences = json.loads((tmp_path / "out.json").read_text())
    assert len(differences) == 8
    for name, difference in differences.items():
        assert difference < (0.1 if "bfloat16" in name else 2e-5), name


def test_a_whole_run_with_two_processes_then_one_changes_nothing(recipe: Path, tmp_path: Path) -> None:
    result = together("-m", "domainbridge", "run", recipe, "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("r1-distill: fog mIoU") == 1, "one process speaks"
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["stages"]["r1-distill"]["targets"]["fog"]["images"] == 4
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/r1-cut/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9)), "one process writes"
    again = [sys.executable, "-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run")]
    second = subprocess.run(again, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert second.stderr.count("done already") == 5


def test_two_paths_at_the_same_time_are_those_of_one_process(recipe: Path, tmp_path: Path) -> None:
    """Bit for bit: each path has one process. A stop in between goes on with one process."""
    run = ["-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run")]
    two = together(*run, "--until", "r1-class")
    assert two.returncode == 0, two.stderr
    assert "r1-class: at the same time on other processes" in two.stderr
    for path in ("cut", "class"):
        assert two.stderr.count(f"r1-{path}: fog mIoU") == 1, "scores of both are told"
        steps = [
            json.loads(line)["step"] for line in (tmp_path / f"run/r1-{path}/metrics.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(1, 9))
        assert list((tmp_path / f"run/r1-{path}").glob("events.out.tfevents.*"))
    assert {"r1-cut", "r1-class"} <= set(json.loads((tmp_path / "run/results.json").read_text())["stages"])
    shutil.copytree(tmp_path / "run", tmp_path / "one", ignore=shutil.ignore_patterns("r1-*"))
    alone = [sys.executable, *run[:-1], str(tmp_path / "one"), "--until", "r1-class"]
    subprocess.run(alone, env=ENVIRONMENT, check=True, capture_output=True)
    for path in ("r1-cut", "r1-class"):
        ours, expected = (
            load_file(folder / path / "model/model.safetensors") for folder in (tmp_path / "run", tmp_path / "one")
        )
        assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_stages_at_the_same_time_stop_and_go_on(recipe: Path, tmp_path: Path) -> None:
    """torchrun passes SIGTERM on to all processes: both paths are saved, and one process finishes them."""
    run = [
        "-m",
        "domainbridge",
        "run",
        str(recipe),
        "training.steps=60",
        "--out",
        str(tmp_path / "run"),
        "--until",
        "r1-class",
    ]
    running = subprocess.Popen([*TORCHRUN, *run], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    files = [tmp_path / f"run/r1-{path}/started.json" for path in ("cut", "class")]
    training_processes(running, files)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=120)
    assert all(file.exists() and (file.parent / "state.pt").exists() for file in files)
    result = subprocess.run([sys.executable, *run], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert result.stderr.count("resuming") == 2, result.stderr


def test_prototypes_are_those_of_one_process(recipe: Path, tmp_path: Path) -> None:
    run = ["-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, *run, "--until", "r1-class"], env=ENVIRONMENT, check=True, capture_output=True)
    files = [tmp_path / f"run/r1-prototypes/r1-{path}.safetensors" for path in ("cut", "class")]
    banks = []
    for command in (TORCHRUN, [sys.executable]):
        (tmp_path / "run/r1-prototypes/done.json").unlink(missing_ok=True)
        result = subprocess.run([*command, *run, "--only", "r1-prototypes"], env=ENVIRONMENT, capture_output=True)
        assert result.returncode == 0, result.stderr
        banks.append([load_file(file) for file in files])
    for two, one in zip(*banks, strict=True):
        assert torch.equal(two["counts"], one["counts"])
        assert two["counts"].sum() > 0
        torch.testing.assert_close(two["vectors"], one["vectors"], rtol=1e-5, atol=1e-6)


def test_target_statistics_are_those_of_one_process(recipe: Path, tmp_path: Path) -> None:
    run = ["-m", "domainbridge", "run", str(recipe), "adabn=true", "--out", str(tmp_path / "run")]
    subprocess.run([sys.executable, *run, "--until", "source-only"], env=ENVIRONMENT, check=True, capture_output=True)
    models = []
    for command in (TORCHRUN, [sys.executable]):
        (tmp_path / "run/adabn/done.json").unlink(missing_ok=True)
        result = subprocess.run([*command, *run, "--only", "adabn"], env=ENVIRONMENT, capture_output=True)
        assert result.returncode == 0, result.stderr
        models.append(load_file(tmp_path / "run/adabn/model/model.safetensors"))
    two, one = models
    trained = load_file(tmp_path / "run/source-only/model/model.safetensors")
    assert not all(torch.equal(one[name], trained[name]) for name in trained)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_ddb_in_one_stage_is_that_of_one_process(generated_data: Path, tmp_path: Path) -> None:
    """Three trained networks, their teachers and prototypes: the losses and the weights of one process."""
    tree = {key: value for key, value in RECIPE.items() if key not in ("prototypes", "source_only")}
    model = {**RECIPE["model"], "head": {**RECIPE["model"]["head"], "dropout": 0.0}}
    early = {"every": 2, "patience": 9, "images": 3}  # two processes share three images
    training = {**RECIPE["training"], "steps": 6, "log_every": 1, "learning_rate": 1e-4, "early_stopping": early}
    online = {"distill_after": 2, "min_pixels": 1}
    tree |= {"method": "ddb-online", "model": model, "training": training, "online": online}
    tree |= {"data_root": str(generated_data), "self_training": {"confidence": 0.34, "confidence_over": "all"}}
    (tmp_path / "online.yaml").write_text(yaml.safe_dump(tree))
    run = ["-m", "domainbridge", "run", str(tmp_path / "online.yaml"), "--out"]
    subprocess.run([sys.executable, *run, str(tmp_path / "one")], env=ENVIRONMENT, check=True, capture_output=True)
    result = together(*run, tmp_path / "two")
    assert result.returncode == 0, result.stderr
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "ddb-online/metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [line["step"] for line in one] == [line["step"] for line in two] == [1, 2, 3, 4, 5, 6]
    for expected, line in zip(one, two, strict=True):
        assert line["losses"] == {name: pytest.approx(value, abs=2e-5) for name, value in expected["losses"].items()}
        assert line["metrics"] == {name: pytest.approx(value, abs=1e-3) for name, value in expected["metrics"].items()}
    assert one[-1]["losses"]["target"] > 0
    assert one[-1]["metrics"]["prototype_share"] > 0
    expected_weights, weights = (load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two"))
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
def test_torchrun_starts_killed_processes_again(recipe: Path, tmp_path: Path) -> None:
    """`--max-restarts`: the same command goes on from the last checkpoint by itself, and ends."""
    run = ["-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run"), "--until", "source-only"]
    command = [*TORCHRUN, "--max-restarts", "1", *run]
    running = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    os.kill(training_processes(running, [tmp_path / "run/source-only/started.json"])[1], signal.SIGKILL)
    _, errors = running.communicate(timeout=240)
    assert running.returncode == 0, errors
    assert errors.count("resuming") == 1
    assert (tmp_path / "run/source-only/done.json").exists()


def test_one_killed_process_stops_the_other_and_one_process_resumes(recipe: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, "-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run")]
    running = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    other, victim = training_processes(running, [tmp_path / "run/r1-cut/started.json"])
    os.kill(victim, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):  # torchrun sends SIGTERM at some moment: here at all of them
        began = time.monotonic()
        while time.monotonic() - began < 0.5:  # one request: a signal more than a second later is a second one
            os.kill(other, signal.SIGTERM)
            time.sleep(0.005)
    _, errors = running.communicate(timeout=120)  # far below the time after which a process stops waiting for another
    assert running.returncode != 0
    assert "another process failed; torchrun names the first failure below" in errors
    assert "Traceback" not in errors.partition("another process failed")[0], "one message, no traceback"
    alone = [sys.executable, "-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "run")]
    resumed = subprocess.run(alone, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert "r1-cut: resuming (from step" in resumed.stderr
    assert (tmp_path / "run/model/model.safetensors").exists()


def test_the_message_of_the_failing_process_reaches_the_others(recipe: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(recipe.read_text())
    tree["training"]["learning_rate"] = 1e30
    recipe.write_text(yaml.safe_dump(tree))
    result = together("-m", "domainbridge", "run", recipe, "--out", tmp_path / "run")
    assert result.returncode != 0
    assert "is not finite; training stopped" in result.stderr
    assert not list((tmp_path / "run").glob("*/model"))


def test_a_failure_of_the_main_process_ends_the_others(recipe: Path, generated_data: Path, tmp_path: Path) -> None:
    shutil.copytree(generated_data, tmp_path / "data")
    (tmp_path / "data/source/images/003.png").write_bytes(b"broken")
    tree = yaml.safe_load(recipe.read_text()) | {"data_root": str(tmp_path / "data")}
    recipe.write_text(yaml.safe_dump(tree))
    result = together("-m", "domainbridge", "run", recipe, "--out", tmp_path / "run")
    assert result.returncode != 0
    assert "error: recipe tiny: 1 file(s) cannot be used" in result.stderr
    assert "003.png: unreadable" in result.stderr
    assert "error: another process failed; torchrun names the first failure below" in result.stderr
    assert not (tmp_path / "run").exists()


def test_rows_cover_the_batch_and_draws_follow_them() -> None:
    draws = torch.arange(6)
    parts = [Processes(rank, 3).rows(6).of(draws) for rank in range(3)]
    assert torch.equal(torch.cat(parts), draws)
    assert Processes().rows(5) == Rows(0, 5, 5)
    with pytest.raises(RecipeError, match="batch_size: 5 rows for 2 processes"):
        Processes(0, 2).rows(5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="SyncBatchNorm needs two CUDA devices")
def test_statistics_over_two_gpus(recipe: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(recipe.read_text())
    tree["runtime"]["device"] = "cuda"
    recipe.write_text(yaml.safe_dump(tree))
    together("-m", "domainbridge", "run", recipe, "--out", tmp_path / "two")
    alone = [sys.executable, "-m", "domainbridge", "run", str(recipe), "--out", str(tmp_path / "one")]
    subprocess.run(alone, env=ENVIRONMENT, check=True)
    one, two = (load_file(tmp_path / f"{name}/source-only/model/model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
