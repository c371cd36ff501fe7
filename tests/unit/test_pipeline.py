"""The plan: stages, inputs, fingerprints, verdicts."""

import copy

import pytest

from domainbridge.config.load import parse_recipe
from domainbridge.pipeline.plan import Stage, StageState, plan_stages, verdict
from tiny_domain import RECIPE


def stages(**changes: object) -> dict[str, Stage]:
    recipe = parse_recipe({**copy.deepcopy(RECIPE), **changes})
    return {stage.name: stage for stage in plan_stages(recipe, None)}


def changed(**changes: object) -> set[str]:
    before, after = stages(), stages(**changes)
    return {name for name in after if name not in before or after[name].fingerprint != before[name].fingerprint}


def test_inputs_come_first_and_students_start_as_published() -> None:
    planned = stages()
    done: set[str] = set()
    for stage in planned.values():
        assert set(stage.inputs) <= done
        done.add(stage.name)
    assert planned["r1-cut"].init is None
    assert planned["r2-cut"].init == planned["r2-class"].init == "r1-distil"
    assert planned["r1-distil"].init is planned["r2-distil"].init is None
    assert planned["r2-distil"].teachers == ("r2-cut", "r2-class")


def test_warm_start() -> None:
    planned = stages(warm_start=True)
    for name in ("r1-cut", "r1-class", "r1-distil"):
        assert planned[name].init == "source-only"
    for name in ("r2-cut", "r2-class", "r2-distil"):
        assert planned[name].init == "r1-distil"


def test_without_prototypes_there_is_no_such_stage() -> None:
    planned = stages(distillation={"prototypes": False})
    assert not any(stage.kind == "prototypes" for stage in planned.values())


ROUND_2 = {"r2-cut", "r2-class", "r2-prototypes", "r2-distil"}
DISTIL_ON = {"r1-distil", *ROUND_2}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stages": {"r2-distil": {"steps": 9}}}, {"r2-distil"}),
        ({"stages": {"r1-class": {"steps": 9}}}, {"r1-class", "r1-prototypes", *DISTIL_ON}),
        ({"distillation": {"mode": "soft"}}, DISTIL_ON),
        ({"prototypes": {"passes": 2}}, {"r1-prototypes", *DISTIL_ON}),
        ({"self_training": {"confidence": 0.9}}, {"r1-cut", "r1-class", "r1-prototypes", *DISTIL_ON}),
        ({"evaluation": {"flip": True}}, set()),
        ({"runtime": {"workers": 3}}, set()),
        ({"data_root": "/elsewhere"}, set()),
        ({"training": {**RECIPE["training"], "log_every": 1, "checkpoint_every": 7}}, set()),
        ({"source_only": False}, set()),
        ({"rounds": 1}, set()),
        ({"seed": 4}, set(stages())),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_change_reaches_its_stage_and_the_descendants_only(changes: dict, expected: set[str]) -> None:
    assert changed(**changes) == expected


def test_verdicts() -> None:
    stage = stages()["r1-cut"]
    same = {"fingerprint": stage.fingerprint, "spec": stage.spec, "steps": 4, "seconds": 1.0}
    other = {**same, "fingerprint": "x", "spec": {**stage.spec, "seed": 99}}
    assert verdict(stage, StageState(None, None), set()).action == "run"
    assert verdict(stage, StageState(same, None), set()).action == "done"
    assert verdict(stage, StageState(None, {**same, "step": 2}), set()).reason == "from step 2"
    assert verdict(stage, StageState(other, None), set()).reason == "changed: seed 99 -> 3"
    distil = stages()["r1-distil"]
    old = {"fingerprint": "x", "spec": distil.spec}
    assert "r1-cut" in verdict(distil, StageState(old, None), {"r1-cut"}).reason
