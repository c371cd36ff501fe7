"""Golden a, through the door that users take: a checkpoint under the authors' names becomes a model folder."""

from pathlib import Path

import golden_arrays as golden
import pytest
import torch
from typer.testing import CliRunner

from domainbridge.cli.app import app
from domainbridge.models.model_folder import load_model
from domainbridge.ops.upsample import upsample

META = {"mmseg_version": "0.22.1", "iter": 40000, "CLASSES": tuple(f"class {i}" for i in range(19)), "PALETTE": None}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    listed = golden.table("a_r101v1c_state_dict_names.json")
    return {name: golden.weight(name, tuple(shape), "r101v1c/") for name, shape, _ in listed["entries"]}


@pytest.mark.parametrize("prefix", ["", "model.", "stu_model."])
def test_the_student_of_either_step(prefix: str, weights: dict[str, torch.Tensor], tmp_path: Path, compare) -> None:
    entries = {f"{prefix}{name}": value for name, value in weights.items()}
    if prefix:  # teachers lie beside the student: half of them would do harm if they were taken
        teacher = "ema_model." if prefix == "model." else "cu_model."
        entries |= {f"{teacher}{name}": torch.zeros(()) for name in weights}
    momentum = {"state": {0: {"step": 5, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 6e-5, "params": [0]}]}
    torch.save({"meta": META, "state_dict": entries, "optimizer": momentum}, tmp_path / "weight.pth")
    result = CliRunner().invoke(app, ["import", str(tmp_path / "weight.pth"), "--out", str(tmp_path / "model")])
    assert result.exit_code == 0, result.output
    model, card = load_model(tmp_path / "model")
    assert card.spec.backbone == "resnet101_v1c"
    assert (card.label_space, card.resize) == ("cityscapes19", (1024, 512, True, None))
    model.mean.zero_()
    model.std.fill_(1)
    with torch.no_grad():
        logits = model(golden.image("a/r101/x", (1, 3, 128, 160))).logits
    expected = golden.arrays("a_r101v1c_eval.npz")
    compare("a r101v1c imported logits", logits, expected["logits"], 1e-4)
    compare("a r101v1c imported upsampled logits", upsample(logits, (128, 160)), expected["logits_up"], 1e-4)
