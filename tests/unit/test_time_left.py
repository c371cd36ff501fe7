"""The time left of a run, on a clock that the test moves."""

from dataclasses import replace
from pathlib import Path

import pytest

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.time_left import TimeLeft
from domainbridge.run.work import Work, planned_work


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


WORK = [
    Work("a", "training", "self-training", 0, 10, cost=6),
    Work("a", "scoring", "scoring", 0, 4, cost=1),
    Work("b", "training", "self-training", 0, 20, cost=6),
    Work("b", "scoring", "scoring", 0, 4, cost=1),
]
STEP, IMAGE, LOADING = 2.0, 0.5, 3.0


def carry_out(
    time_left: TimeLeft, clock: Clock, stages: dict[str, int], speeds: dict[str, float] | None = None
) -> list[tuple[float, float | None]]:
    """Take every step and score every image; (time, seconds left) after each."""
    seen = []
    for stage, steps in stages.items():
        slow = (speeds or {}).get(stage, 1.0)
        time_left.begin(stage)
        clock.now += LOADING * slow
        time_left.advance(stage, "training", 0)
        for phase, units, seconds in (("training", steps, STEP), ("scoring", 4, IMAGE)):
            time_left.advance(stage, phase, 0)
            for done in range(1, units + 1):
                clock.now += seconds * slow
                time_left.advance(stage, phase, done)
                seen.append((clock.now, time_left.seconds()))
    return seen


def test_the_second_half_is_foretold_within_a_quarter() -> None:
    clock = Clock()
    time_left = TimeLeft(WORK, clock)
    assert time_left.seconds() is None
    seen = carry_out(time_left, clock, {"a": 10, "b": 20})
    end = clock.now
    for now, left in seen:
        if now - 100 >= (end - 100) / 2 and end - now > 1:
            assert left == pytest.approx(end - now, rel=0.25)
    assert time_left.seconds() == pytest.approx(0, abs=0.5)
    assert time_left.share() == pytest.approx(1, abs=0.01)


def test_a_machine_that_others_leave_is_believed_to_be_fast() -> None:
    """Stage a on a busy machine, at a third of the speed; b on a free one. The mean over both is 100 % too long."""
    work = [replace(part, units=60) if part.phase == "training" else part for part in WORK]
    clock = Clock()
    time_left = TimeLeft(work, clock)
    seen = carry_out(time_left, clock, {"a": 60, "b": 60}, {"a": 3.0})
    end = clock.now
    late = [(now, left) for now, left in seen if end - 60 <= now < end - 20]
    assert len(late) > 10
    for now, left in late:
        assert left == pytest.approx(end - now, rel=0.5)


def test_what_is_not_measured_is_estimated_by_its_cost() -> None:
    clock = Clock()
    time_left = TimeLeft(WORK, clock)
    time_left.begin("a")
    for done in range(4):
        time_left.advance("a", "training", done)
        clock.now += STEP
    left = time_left.seconds()
    assert left == pytest.approx((27 * STEP) + 8 * STEP / 6, rel=0.1), "an image costs a sixth of a step"


def test_earlier_starts_are_believed_until_something_is_measured() -> None:
    work = [Work("a", "training", "self-training", 5, 10, cost=6, seconds=4.0)]
    clock = Clock()
    time_left = TimeLeft(work, clock)
    time_left.begin("a")
    time_left.advance("a", "training", 5)
    assert time_left.seconds() == pytest.approx(20)
    for done in range(6, 9):
        clock.now += 1
        time_left.advance("a", "training", done)
    assert time_left.seconds() == pytest.approx(2)


def test_the_share_moves_while_a_long_unit_is_computed() -> None:
    clock = Clock()
    time_left = TimeLeft(WORK, clock)
    time_left.begin("a")
    for done in range(3):
        time_left.advance("a", "training", done)
        clock.now += 100
    before = time_left.share()
    clock.now += 50
    assert time_left.share() > before


def test_the_work_of_a_run_is_known_beforehand(recipe_tree: dict, tmp_path: Path) -> None:
    recipe_tree["targets"].append({"name": "unlabeled", "root": "target", "images": "images"})
    recipe_tree["training"]["adapt_batchnorm"] = "target"
    recipe_tree["rounds"] = 1
    recipe = parse_recipe(recipe_tree)
    data = open_data(recipe)
    work = planned_work(recipe, data, plan(stage_graph(recipe, data), tmp_path / "run"), tmp_path / "run", "r1-distill")
    scored = ("label-free scoring", "scoring")
    assert [(part.stage, part.phase) for part in work] == [
        ("source-only", "training"),
        *(("source-only", phase) for phase in scored),
        *((stage, phase) for stage in ("r1-cut", "r1-class") for phase in ("training", "statistics", *scored)),
        ("r1-prototypes", "prototypes"),
        *(("r1-distill", phase) for phase in ("training", "statistics", *scored)),
    ]
    assert {part.units for part in work if part.phase == "label-free scoring"} == {4 + 4 + 1}
    assert {part.units for part in work if part.phase == "training"} == {4}
    assert {part.units for part in work if part.phase == "scoring"} == {4 + 10}
    assert {part.units for part in work if part.phase == "statistics"} == {10}
