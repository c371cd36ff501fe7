"""Recipes: loading, overrides, and messages that list everything at once."""

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbridge.build.recipe import load_recipe, parse_recipe, stages_of, training_config
from domainbridge.config.load import dump_recipe, recipe_path, shipped_recipes
from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.errors import RecipeError
from tiny_domain import RECIPE

MINIMAL = """
name: small
sources: [{name: a, root: a, images: i, labels: l}]
targets: [{name: b, root: b, images: i}]
training: {learning_rate: 1e-4, steps: 10}
"""


def parsed(**changes: object):
    return parse_recipe({**copy.deepcopy(RECIPE), **changes})


def training_of(recipe: Recipe, name: str) -> TrainingConfig:
    return training_config(recipe, next(stage for stage in stages_of(recipe) if stage.name == name))


def test_yaml_floats_without_a_dot_are_floats(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL)
    assert load_recipe(str(path)).training.learning_rate == 1e-4


def test_all_problems_in_one_message() -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(trainning={}, rounds=0, training={"steps": -1, "lerning_rate": 1}, sources=[])
    message = str(caught.value)
    assert "5 problem(s)" in message
    assert "trainning: unknown key; did you mean 'training'?" in message
    assert "training.lerning_rate: unknown key; did you mean 'learning_rate'?" in message
    assert "training.steps: expected a number above 0, found -1" in message
    assert "rounds" in message
    assert "sources" in message


def test_a_key_deep_in_a_list_is_named() -> None:
    sources = [{**RECIPE["sources"][0], "lables": "x"}]
    with pytest.raises(RecipeError, match=r"sources\.0\.lables: unknown key; did you mean 'labels'"):
        parsed(sources=sources)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.steps", "expected key=value"),
        ("sources.4.root=x", "not a position in a list of 1"),
        ("name.first=x", "holds a value, not keys"),
        ("training.stepz=3", "did you mean 'steps'"),
        ("stages.r1-cutt.steps=3", "stages.r1-cutt: unknown stage; this recipe trains source-only, r1-cut"),
    ],
)
def test_wrong_overrides(word: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_recipe(copy.deepcopy(RECIPE), [word])


def test_overrides_reach_lists_and_new_sections() -> None:
    arguments = ["sources.0.root=elsewhere", "stages.r1-cut.learning_rate=1e-5", "evaluation.exclude_classes=[sky]"]
    recipe = parse_recipe(copy.deepcopy(RECIPE), arguments)
    assert recipe.sources[0].root == "elsewhere"
    assert training_of(recipe, "r1-cut").learning_rate == 1e-5
    assert training_of(recipe, "r1-class").learning_rate == 1e-3
    assert recipe.evaluation.exclude_classes == ("sky",)


@given(
    steps=st.integers(1, 10**6),
    rate=st.floats(1e-9, 1, allow_nan=False),
    mode=st.sampled_from(["hard", "soft"]),
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True),
)
def test_a_dumped_recipe_is_the_same_recipe(steps: int, rate: float, mode: str, name: str) -> None:
    training = {"steps": steps, "learning_rate": rate}
    recipe = parsed(name=name, training=training, distillation={"mode": mode})
    import yaml

    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_a_key_written_twice_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(MINIMAL + "name: again\n")
    with pytest.raises(RecipeError, match="'name' is written twice"):
        load_recipe(str(path))


def test_unknown_recipe_suggests_a_name() -> None:
    with pytest.raises(RecipeError, match="Did you mean quickstart"):
        recipe_path("quikstart")


def test_shipped_recipes_have_a_first_line_that_says_what_they_are() -> None:
    for path in shipped_recipes().values():
        assert path.read_text().startswith("# "), path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": [RECIPE["targets"][0]] * 2}, "names must differ"),
        ({"warm_start": True, "source_only": False}, "source_only must be true"),
        ({"augmentation": {"blur_sigma": [2, 1]}}, "lowest <= highest"),
        ({"model": {"head": {"channels": 7, "dilations": [1, 2]}}}, "must divide"),
        ({"label_space": {"name": "x", "classes": ["a", "a"]}}, "must differ"),
        ({"label_space": {"name": "x", "classes": ["a", "b"], "colors": [[1, 2, 3]]}}, "1 colors for 2 classes"),
    ],
)
def test_values_that_do_not_fit_together(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parsed(**changes)


def test_every_batch_divides_into_its_parts() -> None:
    tree = copy.deepcopy(RECIPE)
    tree["training"]["gradient_accumulation_steps"] = 2
    tree["stages"] = {"r1-cut": {"gradient_accumulation_steps": 4}}
    with pytest.raises(RecipeError, match="r1-cut: 4 does not divide batch_size 2"):
        parse_recipe(tree)


@pytest.mark.parametrize(
    ("argument", "new"),
    [
        ("later_rate=0.1", "later_rounds_lr_factor"),
        ("crop.tries=3", "max_tries"),
        ("crop.max_class_share=0.7", "cat_max_ratio"),
        ("sampling.balance=0", "domain_temperature"),
        ("sampling.temperature=1", "rcs_temperature"),
        ("training.accumulate=2", "gradient_accumulation_steps"),
        ("training.recompute=true", "activation_checkpointing"),
        ("training.statistics=target", "adapt_batchnorm"),
        ("stages.r1-cut.head_multiplier=3", "head_lr_mult"),
        ("distillation.weights_on=logits", "rectify"),
        ("distillation.confidence_share=true", "weight_by_confidence"),
        ("runtime.workers=2", "num_workers"),
        ("sources.0.exclude=[a]", "exclude_files"),
        ("targets.0.validation.exclude=[a]", "exclude_files"),
        ("evaluation.exclude=[sky]", "exclude_classes"),
        ("fidelity=fixed", "corrected"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(argument: str, new: str) -> None:
    with pytest.raises(RecipeError, match=rf"(?s)1 problem.*is now called '{new}'"):
        parse_recipe(copy.deepcopy(RECIPE), [argument])


def test_an_old_stage_is_refused_with_its_new_name() -> None:
    with pytest.raises(RecipeError, match="this stage is now called r2-distill"):
        parse_recipe(copy.deepcopy(RECIPE), ["stages.r2-distil.steps=3"])
    with pytest.raises(RecipeError, match="files are listed at every start"):
        parse_recipe(copy.deepcopy(RECIPE), ["runtime.remember_listings=true"])


def test_an_unknown_method_is_a_problem_beside_the_others() -> None:
    with pytest.raises(RecipeError) as caught:
        parsed(method="dbd", seed=-1)
    assert "2 problem(s)" in str(caught.value)
    assert (
        "method: 'dbd' is unknown, known are ddb, ddb-online, distill-models, masked-consistency, prototype-denoising, "
        "self-training" in str(caught.value)
    )
    assert "; did you mean 'ddb'?" in str(caught.value)


def test_a_method_has_keys_of_its_own() -> None:
    shared = {key: value for key, value in copy.deepcopy(RECIPE).items() if key != "prototypes"}
    assert parse_recipe({**shared, "method": "self-training", "mixing": "cut"}).mixing == "cut"
    with pytest.raises(
        RecipeError,
        match="mixing: is a key of method prototype-denoising and self-training, but the recipe's method is ddb",
    ):
        parsed(mixing="cut")
    with pytest.raises(RecipeError, match="rounds: is a key of method ddb"):
        parse_recipe({**shared, "method": "self-training", "rounds": 2})


def test_stages_of_rounds_that_are_switched_off_may_have_values() -> None:
    recipe = parsed(rounds=1, stages={"r2-distill": {"steps": 3}})
    assert [stage.name for stage in stages_of(recipe)][-1] == "r1-distill"
