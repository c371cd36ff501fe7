"""`init: MODEL`: a run that starts from a model that exists already."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from domainbridge.build.datasets import open_data
from domainbridge.build.initial_model import init_notes
from domainbridge.build.networks import initial_student, model_config
from domainbridge.build.recipe import parse_recipe
from domainbridge.cli.app import app
from domainbridge.errors import ModelError, RecipeError, RunFolderError
from domainbridge.models.model_folder import load_model, save_model
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.run import run_recipe
from tiny_domain import CLASSES


@pytest.fixture
def model(recipe_tree: dict[str, Any], tmp_path: Path) -> Path:
    """A model folder with drawn weights for the classes of the tiny domain."""
    recipe = parse_recipe({**recipe_tree, "seed": 11})
    save_model(tmp_path / "model", initial_student(recipe, "another"), model_config(recipe))
    return tmp_path / "model"


def with_init(tree: dict[str, Any], folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny recipe without a section `model`, started from a model."""
    return {**{key: value for key, value in tree.items() if key != "model"}, "init": str(folder), **changes}


def test_every_weight_and_the_network_are_those_of_the_model(recipe_tree: dict[str, Any], model: Path) -> None:
    recipe = parse_recipe(with_init(recipe_tree, model))
    expected, config = load_model(model)
    assert model_config(recipe).spec == config.spec
    started = initial_student(recipe, "source-only").state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(started[name], value), name
    assert init_notes(recipe) == [f"init: 3 of 3 classes have the weights of {model}"]


def test_rows_of_classes_go_by_name(recipe_tree: dict[str, Any], model: Path) -> None:
    space = {"name": "other", "classes": [CLASSES[2], "tree", CLASSES[0]]}
    recipe = parse_recipe(with_init(recipe_tree, model, label_space=space))
    started, source = initial_student(recipe, "source-only"), load_model(model)[0]
    for value, expected in zip(
        started.head.classifier.state_dict().values(), source.head.classifier.state_dict().values(), strict=True
    ):
        assert torch.equal(value[0], expected[2])
        assert torch.equal(value[2], expected[0])
        if value.dim() > 1:  # a drawn bias is 0
            assert not any(torch.equal(value[1], row) for row in expected)
    notes = init_notes(recipe)
    assert "2 of 3 classes" in notes[0]
    assert notes[0].endswith("drawn anew: tree")
    assert notes[1].endswith("does not predict: box")


def test_contradicting_keys_are_listed_at_once(recipe_tree: dict[str, Any], model: Path) -> None:
    section = {"backbone": "resnet18_v1c", "head": {"channels": 32, "dropout": 0.5}}
    with pytest.raises(RecipeError, match=r"(?s)model.backbone: resnet18_v1c, but .*model.head.channels: 32, but"):
        parse_recipe(with_init(recipe_tree, model, model=section))
    free = {"output_stride": 32, "weights": "imagenet", "head": {"dropout": 0.5}}
    recipe = parse_recipe(with_init(recipe_tree, model, model=free))
    assert (recipe.model.output_stride, recipe.model.head.dropout) == (32, 0.5)


@pytest.mark.parametrize(("init", "text"), [("nowhere", "not a model folder"), ("", "init: "), (3, "init: ")])
def test_no_model(init: Any, text: str, recipe_tree: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=text):
        parse_recipe({**recipe_tree, "init": init})


def test_a_run_starts_from_the_model_and_notices_another_one(
    recipe_tree: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(with_init(recipe_tree, model, training={**recipe_tree["training"], "steps": 1}))
    folder = tmp_path / "run"
    assert run_recipe(recipe, folder, [NullCallback()], until="source-only")
    nodes = stage_graph(recipe, open_data(recipe))
    assert plan(nodes, folder)[0].status.action == "done"
    network, config = load_model(model)
    with torch.no_grad():
        network.head.classifier.bias += 1
    save_model(model, network, config)
    status = plan(stage_graph(recipe, open_data(recipe)), folder)[0].status
    assert (status.action, status.reason) == ("run", "changed: files of init (names, number or contents)")


def test_a_model_of_the_run_itself_is_refused(recipe_tree: dict[str, Any], model: Path) -> None:
    recipe = parse_recipe(with_init(recipe_tree, model))
    with pytest.raises(RunFolderError, match="lies in the run folder"):
        run_recipe(recipe, model.parent, [NullCallback()])


def test_a_damaged_model_is_named_before_the_first_step(
    recipe_tree: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(with_init(recipe_tree, model))
    path = model / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        run_recipe(recipe, tmp_path / "run", [NullCallback()])
    assert not (tmp_path / "run").exists()


def test_a_whole_model_as_weights_is_told_the_key(recipe_tree: dict[str, Any], model: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe_tree["model"] = {**recipe_tree["model"], "weights": str(model / "model.safetensors")}
    path.write_text(json.dumps(recipe_tree))
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "run")])
    assert isinstance(result.exception, ModelError)
    assert f"is a whole model, and weights of a backbone are expected; start from the model with init: {model}" in str(
        result.exception
    )
