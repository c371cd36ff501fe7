"""Label space of the files, and label space after decoding."""

import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.build.datasets import open_data
from domainbridge.build.label_space import source_decoder, validation_decoder
from domainbridge.build.recipe import parse_recipe, stages_of, training_config
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.errors import InputError, RecipeError
from tiny_domain import RECIPE


def recipe(**changes: object):
    return parse_recipe({**copy.deepcopy(RECIPE), **changes})


def decoded(tmp_path: Path, values: list[int], validation: dict, **changes: object) -> list[int]:
    """Values of a validation label file after decoding."""
    target = {**RECIPE["targets"][0], "validation": {**RECIPE["targets"][0]["validation"], **validation}}
    built = recipe(targets=[target], **changes)
    path = tmp_path / "label.png"
    Image.fromarray(np.array([values], np.uint8)).save(path)
    rule = built.targets[0].validation
    assert rule is not None
    return validation_decoder(built, rule, "folder", Path(), "here").read(path)[0].tolist()


def idd(*names: str) -> list[int]:
    return [BUILT_IN["idd7"].index(name) for name in names]


def test_validation_labels_are_in_the_recipes_space_and_end_in_the_scoring_space(tmp_path: Path) -> None:
    coarse = {"label_space": "cityscapes19", "evaluation": {"label_space": "idd7"}}
    assert decoded(tmp_path, [0, 10, 18, 255], {}, **coarse) == [*idd("drivable", "sky", "vehicles"), 255]
    mapped = decoded(tmp_path, [11, 12], {"label_map": {11: 2, 12: "sky"}}, **coarse)
    assert mapped == idd("far objects", "sky")


def test_files_already_in_the_scoring_space(tmp_path: Path) -> None:
    coarse = {"label_space": "cityscapes19", "evaluation": {"label_space": "idd7"}}
    assert decoded(tmp_path, [6, 0], {"label_space": "idd7"}, **coarse) == [6, 0]


def test_files_in_a_finer_space_than_the_recipes(tmp_path: Path) -> None:
    values = decoded(tmp_path, [0, 10], {"label_space": "cityscapes19"}, label_space="camvid11")
    assert values == [BUILT_IN["camvid11"].index(name) for name in ("road", "sky")]


def test_a_coarser_space_of_the_users_own(tmp_path: Path) -> None:
    evaluation = {
        "label_space": {"name": "two", "classes": ["thing", "stuff"]},
        "map": {"box": "thing", "ground": "stuff", "sky": "ignore"},
    }
    assert decoded(tmp_path, [0, 1, 2, 255], {}, evaluation=evaluation) == [1, 0, 255, 255]
    painted = {"label_map": {"#0a0a0a": "box", "#0b0b0b": "ground"}}
    assert decoded(tmp_path, [10, 11, 12], painted, evaluation=evaluation) == [0, 1, 255]


def test_both_ways_at_once_are_refused() -> None:
    source = {**RECIPE["sources"][0], "label_space": "camvid11", "label_map": {0: "sky"}}
    built = recipe(sources=[source])
    with pytest.raises(RecipeError, match="not both"):
        source_decoder(built, built.sources[0], "folder", Path(), "here")


def test_layouts_refuse_keys_that_they_would_ignore(tmp_path: Path) -> None:
    source = {"name": "g", "dataset": "gta5", "root": ".", "images": "x", "split": "train.txt"}
    with pytest.raises(InputError, match="leave out images"):
        open_data(recipe(sources=[source], label_space="cityscapes19", data_root=str(tmp_path)))
    with pytest.raises(InputError, match="gta5 has no splits"):
        open_data(recipe(sources=[{**source, "images": None}], label_space="cityscapes19", data_root=str(tmp_path)))


def test_one_round_of_a_recipe_that_names_two() -> None:
    built = recipe(rounds=1, stages={"r2-cut": {"steps": 5}})
    assert stages_of(built)[-1].name == "r1-distill"


def test_later_paths_learn_at_a_tenth_of_the_rate() -> None:
    built = recipe(stages={"r2-class": {"learning_rate": 5e-4}})
    stages = {stage.name: stage for stage in stages_of(built)}
    names = ("r2-cut", "r2-class", "r1-cut", "r2-distill")
    rates = [training_config(built, stages[name]).learning_rate for name in names]
    assert rates == pytest.approx([1e-4, 5e-4, 1e-3, 1e-3])
