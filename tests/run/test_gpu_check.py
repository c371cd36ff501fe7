"""`python -m benchmarks gpu`: the code that a GPU will run, here small and on a CPU."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gpu_check, gpu_commands
from benchmarks.gpu_check import checks, main, run_here
from benchmarks.gpu_report import report_text
from benchmarks.gpu_whole import killed_and_resumed, whole_run

SMALL = ["--small", "--device", "cpu"]


def results_of(*names: str) -> dict[str, dict[str, Any]]:
    every = {name: check for group in checks("cpu", small=True).values() for name, check in group.items()}
    results: dict[str, dict[str, Any]] = {}

    def tell(entry: dict[str, Any]) -> None:
        if "name" in entry:
            results[entry["name"]] = entry["result"]

    run_here({name: every[name] for name in names}, tell, 10)
    assert not any("failed" in result for result in results.values()), results
    return results


def test_a_cpu_gives_what_a_cpu_gives() -> None:
    kinds = [name for name in checks("cpu", small=True)["as on the CPU"] if name.startswith("losses, ")]
    assert {"losses, online", "losses, masked consistency", "losses, prototype denoising"} < set(kinds)
    results = results_of(*kinds, "prototypes and classes", "the same steps twice", "bfloat16 beside float32")
    for kind in kinds:
        assert results[kind]["largest"] == results[kind]["weights"] == 0, kind
        assert results[kind]["within"]
    assert results["losses, class"]["losses"]["bridged"] > 0
    assert results["prototypes and classes"]["equal_pixels_float32"] == 1
    assert results["the same steps twice"]["equal"]
    assert 0 < results["bfloat16 beside float32"]["class"] < 0.05


def test_speed_and_scoring_are_measured() -> None:
    results = results_of("environment", "class, bfloat16", "scoring, float32")
    assert results["class, bfloat16"]["steps_per_second"] > 0
    assert results["scoring, float32"]["images_per_second"] > 0
    text = report_text(results)
    assert "| class, bfloat16 |" in text
    assert "images_per_second" in text


@pytest.mark.slow
def test_two_processes_give_what_one_gives() -> None:
    result = results_of("two processes, float32")["two processes, float32"]
    assert result["backend"] == "gloo"
    assert result["within"]


def test_a_check_that_ends_its_process_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first check of the group kills the process, the second one raises, the third one is good."""
    out = tmp_path / "gpu.json"
    program = tmp_path / "sitecustomize.py"
    program.write_text(
        "import benchmarks.gpu_check as g, os, signal\n"
        "g.checks = lambda device, *, small: {'group': {\n"
        "    'kills': lambda: os.kill(os.getpid(), signal.SIGKILL),\n"
        "    'fails': lambda: 1 / 0, 'good': lambda: {'within': True}}}\n"
    )
    monkeypatch.setattr(
        gpu_check, "checks", lambda device, *, small: {"group": dict.fromkeys(("kills", "fails", "good"))}
    )
    project = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), project, os.environ.get("PYTHONPATH", "")]))
    assert main([*SMALL, "--out", str(out)]) == 1
    results = json.loads(out.read_text())
    assert f"status {-signal.SIGKILL}" in results["kills"]["failed"]
    assert "ZeroDivisionError" in results["fails"]["failed"]
    assert results["good"]["within"]
    assert "| kills | **failed** |" in out.with_suffix(".md").read_text()


def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    lines, names = tmp_path / "lines", ["environment", "whole run"]
    arguments = ["--small", "--device", "abacus", "--lines", str(lines)]
    main([*arguments, *(word for name in names for word in ("--only", name))])
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [entry["name"] for entry in told] == names
    assert all("'abacus' cannot be used here" in entry["result"]["failed"] for entry in told)


def test_what_would_begin_too_late_is_named(tmp_path: Path) -> None:
    out = tmp_path / "results/gpu.json"
    assert main([*SMALL, "--minutes", "0", "--out", str(out), "--only", "class, float32"]) == 0
    assert "minutes were over" in json.loads(out.read_text())["class, float32"]["left out"]


def test_a_name_that_no_check_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*SMALL, "--only", "speed"])
    assert "no such check: speed; there are environment; " in capsys.readouterr().err


@pytest.mark.slow
def test_commands_run_and_a_killed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_commands, "PATIENCE", 1800.0)
    whole = whole_run("cpu", steps=2)
    assert whole["within"]
    assert whole["equal_pixels"] == 1
    killed = killed_and_resumed("cpu", steps=12, every=2)
    assert killed["within"]
    assert killed["weights_differ_by"] == 0
