"""Finished models distilled into one network: on the command line, from Python, and what is refused."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from domainbridge.api import adapt, distill
from domainbridge.build.networks import model_config
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.cli.app import app
from domainbridge.errors import ModelError, RecipeError
from domainbridge.methods.base import TrainingStage
from domainbridge.models.licenses import initial_weights
from domainbridge.models.model_folder import read_model_config, save_model
from domainbridge.models.segmenter import build_segmenter
from domainbridge.run.prototype_files import load_prototypes
from domainbridge.run.results import read_results
from domainbridge.tools.costs import costs_of_stage
from domainbridge.tools.distill_recipe import distillation_tree
from interrupted import run_until_killed
from tiny_domain import RECIPE


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished models of different backbones, with 16 and with 8 channels; the second began with DINOv3."""
    config = model_config(parse_recipe(copy.deepcopy(RECIPE)))
    dinov3 = initial_weights("vit_small_patch16_dinov3", "pretrained")
    small = replace(config.spec, backbone="test_resnet", head=replace(config.spec.head, channels=8))
    folders = []
    for number, spec in enumerate((config.spec, small)):
        torch.manual_seed(number)
        folders.append(tmp_path_factory.mktemp("teachers") / f"model-{number}")
        began = dinov3 if number else None
        save_model(folders[-1], build_segmenter(spec), replace(config, spec=spec, initial_weights=began))
    return folders


SMALL = ["training.steps=2", "training.batch_size=2", "crop.width=32", "crop.height=32", "runtime.num_workers=0"]
SMALL += ["model.head.channels=4", "prototypes.passes=1", "prototypes.min_pixels=1", "runtime.threads=1"]


def arguments(teachers: list[Path], generated_data: Path, out: Path) -> list[str]:
    options = ["--target", str(generated_data / "target/images"), "--backbone", "test_resnet", "--out", str(out)]
    return ["distill", *map(str, teachers), *options, *SMALL]


def test_the_command_goes_from_model_folders_to_one_model(
    teachers: list[Path], generated_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    result = CliRunner().invoke(app, arguments(teachers, generated_data, out))
    assert result.exit_code == 0, result.output
    results = read_results(out)
    assert list(results.stages) == ["teacher-1", "teacher-2", "prototypes", "distill"]
    assert results.final == "distill"
    config = read_model_config(out / "model")
    assert (config.spec.backbone, config.spec.head.channels) == ("test_resnet", 4)
    assert config.classes == read_model_config(teachers[0]).classes
    assert config.initial_weights is None
    assert config.teacher_weights == (read_model_config(teachers[1]).initial_weights,)
    card = (out / "model/README.md").read_text()
    assert "| initial weights of a teacher: timm/vit_small_patch16_dinov3.lvd1689m | dinov3-license |" in card
    assert "whether a student is a derivative of its teacher's weights is unsettled" in card.lower()
    for number, channels in ((1, 16), (2, 8)):
        bank = load_prototypes(out / "prototypes", f"teacher-{number}", torch.device("cpu"))
        assert bank.vectors.shape == (3, channels)
    begun = load_file(out / "model/model.safetensors")
    again = CliRunner().invoke(app, arguments(teachers, generated_data, out))
    assert again.exit_code == 0, again.output
    assert all(torch.equal(value, begun[name]) for name, value in load_file(out / "model/model.safetensors").items())


def test_a_killed_distillation_goes_on_bit_for_bit(teachers: list[Path], generated_data: Path, tmp_path: Path) -> None:
    tree = distillation_tree(teachers, "x", "test_resnet", target=generated_data / "target/images")
    recipe = parse_recipe(tree, [*SMALL[1:], "training.steps=4", "training.checkpoint_every=2", "training.log_every=1"])
    tree = recipe.model_dump(mode="json", exclude_unset=True)
    assert adapt(tree, out=tmp_path / "whole").finished
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed/distill")
    shutil.rmtree(tmp_path / "killed/model")
    run_until_killed(tree, tmp_path / "killed", "distill", 3)
    assert json.loads((tmp_path / "killed/distill/started.json").read_text())["step"] == 2
    assert adapt(tree, out=tmp_path / "killed").finished
    whole, again = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_sources_add_the_supervised_loss(teachers: list[Path], generated_data: Path) -> None:
    folders = {"source": generated_data / "source/images", "source_labels": generated_data / "source/labels"}
    tree = distillation_tree(teachers, "x", "test_resnet", target=generated_data / "target/images", **folders)
    stage = stages_of(parse_recipe(tree))[-1]
    assert isinstance(stage, TrainingStage)
    assert (stage.supervision, stage.student_passes, stage.teacher_passes) == ("source", 2, 2)
    of_recipe = parse_recipe({**copy.deepcopy(RECIPE), "data_root": str(generated_data)})
    tree = distillation_tree(teachers, "x", "test_resnet", recipe=of_recipe)
    recipe = parse_recipe(tree)
    stage = stages_of(recipe)[-1]
    assert isinstance(stage, TrainingStage)
    assert stage.supervision == "source"
    assert (recipe.training.steps, recipe.model.backbone, recipe.data_root) == (4, "test_resnet", str(generated_data))
    costs = costs_of_stage(recipe, stage, recipe.training)
    large = build_segmenter(read_model_config(teachers[1]).spec)  # the larger one
    assert costs.teacher is not None
    assert costs.teacher.parameters == sum(weight.numel() for weight in large.parameters()) != costs.parameters
    assert costs.step_operations(stage) == 6 * costs.operations + 2 * costs.teacher.operations


def test_what_is_refused(teachers: list[Path], generated_data: Path, tmp_path: Path) -> None:
    target = generated_data / "target/images"
    arguments: dict[str, Any] = {"backbone": "test_resnet", "out": tmp_path / "run"}
    with pytest.raises(RecipeError, match="expected --target DIR or --recipe RECIPE"):
        distill(teachers, **arguments)
    with pytest.raises(RecipeError, match="--source DIR and --source-labels DIR belong together"):
        distill(teachers, target, source=target, **arguments)
    with pytest.raises(ModelError, match="not a model folder"):
        distill(tmp_path / "none", target, **arguments)
    config = read_model_config(teachers[0])
    save_model(tmp_path / "other", build_segmenter(config.spec), replace(config, classes=("ground", "box", "road")))
    with pytest.raises(RecipeError, match=r"teachers: the classes of .*other .* differ in road, sky"):
        distill([teachers[0], tmp_path / "other"], target, **arguments)
    tree = distillation_tree(teachers, "x", "test_resnet", target=target)
    with pytest.raises(RecipeError, match=r"sampling\.rare_classes"):
        adapt({**tree, "sampling": {"rare_classes": True}}, out=tmp_path / "run")
    soft = {**tree, "distillation": {"mode": "soft"}, "training": {"class_weights": {"box": 2.0}}}
    with pytest.raises(
        RecipeError, match=r"training\.class_weights: has no effect in distill, which learns from no labels"
    ):
        adapt(soft, out=tmp_path / "run")
    few = {"root": str(target), "labels": ".", "split": "few.txt"}
    parse_recipe({**soft, "targets": [{**tree["targets"][0], "few": few}]})  # these labels have a cross entropy
    assert not (tmp_path / "run").exists()
