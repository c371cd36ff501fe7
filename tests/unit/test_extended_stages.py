"""``stages.NAME.extend``: which stages there are, what they read, how they train, what is refused."""

import copy
from typing import Any

import pytest

from domainbridge.build.extended_stages import extension_training
from domainbridge.build.recipe import parse_recipe, stages_of, training_config
from domainbridge.config.training import TrainingConfig
from domainbridge.errors import RecipeError
from domainbridge.methods.base import PrototypeStage, TrainingStage
from domainbridge.run.graph import Node, final_stage, stage_graph
from tiny_domain import RECIPE


def nodes(stages: dict[str, Any], **changes: Any) -> dict[str, Node]:
    recipe = parse_recipe({**copy.deepcopy(RECIPE), "stages": stages, **changes})
    return {node.name: node for node in stage_graph(recipe, None)}


def spec(node: Node) -> TrainingStage:
    assert isinstance(node.spec, TrainingStage)
    return node.spec


def test_the_last_stage_goes_on_and_nothing_else_changes() -> None:
    before, after = nodes({}), nodes({"r2-distill": {"extend": 3}})
    assert list(after) == [*before, "r2-distill-extended"]
    assert {name: after[name].fingerprint for name in before} == {n: node.fingerprint for n, node in before.items()}
    extension = spec(after["r2-distill-extended"])
    assert (extension.init, extension.stream) == ("r2-distill", "r2-distill-extended")
    assert extension.inputs == ("r2-distill", "r2-cut", "r2-class", "r2-prototypes")
    assert after["r2-distill-extended"].steps == 3
    assert final_stage(after.values()) == "r2-distill-extended"
    longer = nodes({"r2-distill": {"extend": 4}})
    assert longer["r2-distill-extended"].fingerprint != after["r2-distill-extended"].fingerprint


def test_later_stages_read_the_extension() -> None:
    before, after = nodes({}), nodes({"r1-cut": {"extend": 3}, "r1-distill": {"extend": 2}}, warm_start=True)
    names = list(after)
    first = ["source-only", "r1-cut", "r1-class", "r1-cut-extended", "r1-prototypes", "r1-distill"]
    assert names[: len(first) + 1] == [*first, "r1-distill-extended"]
    prototypes = after["r1-prototypes"].spec
    assert isinstance(prototypes, PrototypeStage)
    assert prototypes.students == prototypes.inputs == ("r1-cut-extended", "r1-class")
    assert spec(after["r1-distill"]).inputs == ("source-only", "r1-cut-extended", "r1-class", "r1-prototypes")
    assert spec(after["r2-cut"]).init == spec(after["r2-class"]).init == "r1-distill-extended"
    assert spec(after["r1-cut-extended"]).inputs == ("r1-cut",), "not what the extended stage started from"
    done: set[str] = set()
    for node in after.values():
        assert set(node.spec.inputs) <= done
        done.add(node.name)
    changed = {name for name in before if after[name].fingerprint != before[name].fingerprint}
    assert "r1-prototypes" in changed


def test_the_rate_begins_again_with_a_short_warmup() -> None:
    training = TrainingConfig(steps=1000, learning_rate=1.0, warmup_steps=100, weight_decay=0.5)
    extension = extension_training(training, 500)
    assert (extension.steps, extension.warmup_steps) == (500, 50)
    assert extension == training.model_copy(update={"steps": 500, "warmup_steps": 50})
    assert extension_training(training, 2000).warmup_steps == 100


def test_values_of_the_extended_stage_and_own_ones() -> None:
    stages = {
        "r2-cut": {"extend": 12, "steps": 8, "learning_rate": 0.5, "weight_decay": 0.25},
        "r2-cut-extended": {"weight_decay": 0.125},
        "r2-class": {"extend": 4},
    }
    recipe = parse_recipe({**copy.deepcopy(RECIPE), "stages": stages})
    settings = {
        stage.name: training_config(recipe, stage) for stage in stages_of(recipe) if isinstance(stage, TrainingStage)
    }
    assert settings["r2-cut-extended"].learning_rate == 0.5
    assert settings["r2-cut-extended"].steps == 12
    assert settings["r2-cut-extended"].weight_decay == 0.125
    assert settings["r2-class-extended"].learning_rate == pytest.approx(1e-3 * 0.1), "round 2's factor"
    assert settings["r2-cut"].steps == 8


def test_a_small_student_of_large_teachers_goes_on() -> None:
    student = {"student": {"backbone": "test_resnet", "weights": "none"}}
    after = nodes({"r2-distill": {"extend": 3}}, distillation=student)
    assert spec(after["r2-distill-extended"]).network == spec(after["r2-distill"]).network
    assert after["r2-distill-extended"].values["model"]["weights"] == "none"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"r2-cut": {"extend": 0}}, r"stages\.r2-cut\.extend: expected a number above 0, found 0"),
        ({"r2-cut-extended": {"weight_decay": 0}}, r"stages\.r2-cut-extended: unknown stage"),
        ({"r3-cuts": {"extend": 5}}, r"stages\.r3-cuts: unknown stage"),
        (
            {"r2-cut": {"extend": 5}, "r2-cut-extended": {"steps": 6, "extend": 7}},
            r"r2-cut-extended\.steps: the steps of r2-cut-extended are stages\.r2-cut\.extend(.|\n)*extended\.extend:",
        ),
        ({"source-only": {"extend": 5}}, r"stages\.source-only\.extend: results are compared with source-only; give"),
    ],
)
def test_what_cannot_be_extended(stages: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        nodes(stages)


def test_a_source_only_model_that_is_the_result_goes_on() -> None:
    tree = {key: value for key, value in copy.deepcopy(RECIPE).items() if key not in ("prototypes", "source_only")}
    recipe = parse_recipe({**tree, "method": "source-only", "stages": {"source-only": {"extend": 2}}})
    assert [stage.name for stage in stages_of(recipe)] == ["source-only", "source-only-extended"]
