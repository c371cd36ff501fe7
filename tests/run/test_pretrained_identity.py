"""`model.weights: pretrained`: a stage remembers the file that its network began with."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.models.pretrained_files import FOLDER
from domainbridge.run.graph import Node, PlannedStage, plan, stage_graph
from domainbridge.run.run import run_recipe

NAME = "test_efficientnet"


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder of weights in the place of the hub and of its cache."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(FOLDER, str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def write(folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    save_file(timm.create_model(NAME, pretrained=False).state_dict(), folder / f"{NAME}.safetensors")


def test_the_file_is_known_and_an_emptied_cache_trains_nothing_again(
    recipe_tree: dict[str, Any], weights: Path, tmp_path: Path
) -> None:
    network = {**recipe_tree["model"], "backbone": NAME, "weights": "pretrained"}
    tree = {**recipe_tree, "rounds": 1, "model": network, "evaluation": {"label_free": {"images": 0}}}
    recipe, folder = parse_recipe(tree), tmp_path / "run"

    def planned() -> dict[str, PlannedStage]:
        return {item.name: item for item in plan(stage_graph(recipe, open_data(recipe)), folder)}

    unknown: dict[str, Node] = {name: item.node for name, item in planned().items()}
    write(weights, 1)
    assert {name: item.node.fingerprint for name, item in planned().items()} == {
        name: node.fingerprint for name, node in unknown.items()
    }, "the file is no part of a hash, so that runs of earlier versions stay done"
    assert run_recipe(recipe, folder, until="r1-prototypes")
    done = json.loads((folder / "r1-prototypes/done.json").read_text())
    assert list(done["pretrained"]) == [NAME], "of the networks that it asks"

    (weights / f"{NAME}.safetensors").rename(tmp_path / "elsewhere")
    assert {item.status.action for item in list(planned().values())[:-1]} == {"done"}
    assert run_recipe(recipe, folder, until="r1-prototypes"), "no file is needed where nothing begins"

    write(weights, 2)
    statuses = {name: item.status for name, item in planned().items()}
    assert statuses["r1-cut"].reason == statuses["r1-prototypes"].reason == f"changed: file of pretrained {NAME}"
    (tmp_path / "elsewhere").rename(weights / f"{NAME}.safetensors")
    assert {item.status.action for item in list(planned().values())[:-1]} == {"done"}


def test_a_small_student_has_a_file_beside_those_of_its_teachers(recipe_tree: dict[str, Any], weights: Path) -> None:
    write(weights, 1)
    (weights / "test_vit.safetensors").write_bytes(b"not read here")
    tree = {
        **recipe_tree,
        "model": {**recipe_tree["model"], "backbone": NAME, "weights": "pretrained"},
        "distillation": {"student": {"backbone": "test_vit", "weights": "pretrained"}},
    }
    nodes = {node.name: node.pretrained for node in stage_graph(parse_recipe(tree), None)}
    assert set(nodes["r2-distill"]) == {NAME, "test_vit"}
    assert set(nodes["r2-cut"]) == {NAME}
    named = {**tree["model"], "weights": str(weights / f"{NAME}.safetensors")}
    assert all(not node.pretrained for node in stage_graph(parse_recipe({**recipe_tree, "model": named}), None))
