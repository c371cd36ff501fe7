"""What the trackers of other packages are told; the packages themselves are stand-ins here."""

import copy
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

import domainbridge
from domainbridge.errors import RecipeError
from domainbridge.run.callbacks.base import NullCallback
from tiny_domain import RECIPE, write_domain


class Notes(NullCallback):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def run_with(tracker: str, folder: Path) -> list[str]:
    write_domain(folder / "source", 4, 1, foggy=False, labeled=True)
    write_domain(folder / "target", 4, 2, foggy=True, labeled=False)
    write_domain(folder / "target-val", 2, 3, foggy=True, labeled=True)
    recipe: dict[str, Any] = {key: value for key, value in copy.deepcopy(RECIPE).items() if key != "prototypes"}
    recipe |= {"method": "self-training", "source_only": False, "data_root": str(folder)}
    recipe["training"] |= {"steps": 2, "log_every": 1}
    recipe["runtime"] |= {"callbacks": [tracker]}
    notes = Notes()
    assert domainbridge.adapt(recipe, out=folder / "run", callbacks=[notes]).finished
    return notes.texts


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert not [text for text in run_with("wandb", tmp_path) if "failed" in text]
    logged = [call.args[0] for call in wandb.init.return_value.log.call_args_list]
    steps = [values["self-training/step"] for values in logged if "self-training/step" in values]
    assert steps == [1, 2]
    assert {"self-training/bridged", "self-training/pseudo_label_share", "self-training/learning_rate"} <= set(
        logged[0]
    )
    assert any("self-training/examples" in values for values in logged)
    panel = wandb.Image.call_args.args[0]
    assert (panel[: len(panel) // 2] != panel[len(panel) // 2 :]).any()  # two images, a row each
    wandb.init.return_value.finish.assert_called_once()


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = MagicMock()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert not [text for text in run_with("mlflow", tmp_path) if "failed" in text]
    assert [call.kwargs["step"] for call in mlflow.log_metrics.call_args_list] == [1, 2]
    (score,) = mlflow.log_metric.call_args_list
    assert score.args[0] == "self-training/mIoU/fog"
    assert 0 <= score.args[1] <= 100
    mlflow.end_run.assert_called_once()


def test_a_failing_tracker_is_reported_once_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = MagicMock()
    mlflow.log_metrics.side_effect = ConnectionError("no route to the server")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert len([text for text in run_with("mlflow", tmp_path) if "no route to the server" in text]) == 1


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_an_absent_package_is_told_with_what_to_install(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(RecipeError, match=rf"pip install 'domainbridge\[{tracker}\]'"):
        run_with(tracker, tmp_path)
