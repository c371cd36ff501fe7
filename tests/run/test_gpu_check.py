"""`python -m benchmarks gpu`: the code that a GPU will run, here small and on a CPU."""

import json
from pathlib import Path

import pytest
from benchmarks.gpu_check import FULL, checks, main

from domainbridge.runtime.device import resolve_runtime

NAMES = ["losses as on the CPU", "the same steps twice", "out of memory", "class, bfloat16", "scoring, float32"]


def test_checks_run_and_are_written(tmp_path: Path) -> None:
    arguments = ["--small", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    assert main([*arguments, *(word for name in NAMES for word in ("--only", name))]) == 0
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert set(NAMES) | {"environment", "tf32", "size"} == set(results)
    assert results["losses as on the CPU"] == {"largest_relative_difference": 0.0, "within": True}
    assert results["the same steps twice"] == {"equal": True}
    assert "does not fit into this device's memory" in results["out of memory"]["message"]
    assert results["class, bfloat16"]["steps_per_second"] > 0
    assert results["scoring, float32"]["images_per_second"] > 0


def test_a_failing_check_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.rand", lambda *_, **__: 1 / 0)
    arguments = ["--small", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    assert main([*arguments, "--only", "scoring, float32", "--only", "out of memory"]) == 1
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "ZeroDivisionError" in results["scoring, float32"]["failed"]
    assert results["out of memory"]["message"]


def test_every_kind_of_stage_and_precision_is_checked() -> None:
    names = set(checks(FULL, resolve_runtime("cpu")))
    for kind in ("source-only", "cut", "class", "distillation"):
        assert {f"{kind}, {precision}" for precision in ("float32", "bfloat16", "float16")} <= names
