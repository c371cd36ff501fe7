"""A distilled student of another size than its teachers: identity, checks, costs, and a run that stops and goes on."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.build.stage_network import stage_recipe
from domainbridge.errors import ModelError, RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.models.model_folder import read_model_config
from domainbridge.run.graph import Node, stage_graph
from domainbridge.run.results import read_results
from domainbridge.run.run import run_recipe
from domainbridge.run.selection import candidates
from domainbridge.tools.costs import costs_of, costs_of_stage
from domainbridge.tools.estimate import estimate
from domainbridge.tools.probe import probe
from interrupted import StopAtStep
from tiny_domain import RECIPE

SMALL = {"backbone": "test_resnet", "output_stride": 32, "head": {"channels": 8}}


def tree_of(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(RECIPE), "distillation": {"student": copy.deepcopy(SMALL)}, **changes}


def nodes(tree: dict[str, Any]) -> dict[str, Node]:
    return {node.name: node for node in stage_graph(parse_recipe(tree), None)}


def stage_of(node: Node) -> TrainingStage:
    assert isinstance(node.spec, TrainingStage)
    return node.spec


def test_only_the_last_distillation_is_another_stage() -> None:
    plain, small = nodes(copy.deepcopy(RECIPE)), nodes(tree_of())
    assert {name for name in plain if plain[name].fingerprint != small[name].fingerprint} == {"r2-distill"}
    model = small["r2-distill"].values["model"]
    assert (model["backbone"], model["output_stride"]) == ("test_resnet", 32)
    assert model["head"]["channels"] == 8
    assert model["head"]["dilations"] == [1, 2]  # left out: those of the recipe's model
    assert stage_of(small["r2-cut"]).init == "r1-distill"
    assert candidates(list(small.values())) == ["r2-distill"]  # a score cannot choose the large one
    warm = nodes(tree_of(warm_start=True))
    assert stage_of(warm["r1-distill"]).init == "source-only"
    assert stage_of(warm["r2-distill"]).init is None
    assert warm["r2-distill"].spec.inputs == ("r2-cut", "r2-class", "r2-prototypes")


@pytest.mark.parametrize(
    ("student", "changes", "message"),
    [
        ({"output_stride": 32}, {}, r"distillation.student.backbone: missing; name the backbone of r2-distill's"),
        ({**SMALL, "head": {"channels": 7}}, {}, r"distillation.student.head: .*channels 7 must divide"),
        (SMALL, {"model": {**RECIPE["model"], "weights": "w/large.pth"}}, r"weights: missing, and model.weights"),
        (SMALL, {"init": "m", "model": {"weights": "imagenet"}}, r"student.weights: missing, and init takes the place"),
        ({**SMALL, "backbon": "x"}, {}, r"distillation.student.backbon: unknown key"),
    ],
)
def test_what_is_wrong_with_a_student(student: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tree_of(distillation={"student": student}, **changes))


def test_costs_count_a_small_student_and_large_teachers() -> None:
    recipe = parse_recipe(tree_of())
    node = {node.name: node for node in stage_graph(recipe, None)}["r2-distill"]
    stage = stage_of(node)
    assert node.training is not None
    small, large = costs_of(stage_recipe(recipe, stage), node.training), costs_of(recipe, node.training)
    costs = costs_of_stage(recipe, stage, node.training)
    assert small.parameters != large.parameters
    assert costs.memory(stage) == (4 * small.parameters + 2 * large.parameters) * 4 + small.activations
    assert costs.step_operations(stage) == 6 * small.operations + 2 * large.operations
    assert "student distillation" in estimate(recipe, stage_graph(recipe, None)).explanation


def test_a_run_ships_the_small_student(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = {**recipe_tree, "distillation": {"student": SMALL}, "rounds": 1, "source_only": False, "paths": ["class"]}
    recipe = parse_recipe(tree)
    assert run_recipe(recipe, tmp_path / "whole")
    spec = read_model_config(tmp_path / "whole/model").spec
    assert (spec.backbone, spec.output_stride, spec.head.channels) == ("test_resnet", 32, 8)
    assert read_model_config(tmp_path / "whole/r1-class/model").spec.backbone == "test_efficientnet"
    assert read_results(tmp_path / "whole").stages["r1-distill"].targets["fog"].images == 4
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", ignore=shutil.ignore_patterns("r1-distill", "model"))
    shutil.copytree(tmp_path / "whole/r1-class/model", tmp_path / "cut/r1-class/model")
    assert not run_recipe(recipe, tmp_path / "cut", [StopAtStep("r1-distill", 2)])
    assert run_recipe(recipe, tmp_path / "cut")
    whole, cut = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    distill = [node.spec for node in stage_graph(recipe, None) if node.name == "r1-distill"]
    assert probe(recipe, open_data(recipe), distill)["student distillation"].seconds > 0


def test_a_student_that_cannot_be_built_is_refused_before_the_first_step(
    recipe_tree: dict[str, Any], tmp_path: Path
) -> None:
    student = {"backbone": "test_resnett", "weights": "none"}
    tree = {**recipe_tree, "rounds": 1, "distillation": {"student": student}}
    with pytest.raises(ModelError, match="test_resnett"):
        run_recipe(parse_recipe(tree), tmp_path / "run")
    assert not (tmp_path / "run").exists()
