"""What one core loads, and how many loader processes that means."""

from pathlib import Path
from typing import Any

import pytest

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.errors import RecipeError
from domainbridge.runtime.device import resolve_runtime
from domainbridge.runtime.loader_processes import automatic_workers
from domainbridge.tools.loading import Loading, copies_needed, loading_rate, loading_text, needed_workers

SLOW = Loading(files=0.1, copies=0.005)


def test_processes_for_a_demand() -> None:
    assert needed_workers(0.1, 10) == 1
    assert needed_workers(0.1, 10.1) == 2
    assert needed_workers(1e-4, 0.1) == 1, "never none: the device would wait for every batch"


def test_a_rate_is_measured_on_the_recipes_files(recipe_tree: dict[str, Any]) -> None:
    recipe = parse_recipe(recipe_tree)
    rate = loading_rate(recipe, open_data(recipe))
    assert rate.files > 0
    assert rate.copies > 0
    assert not list(Path(recipe_tree["data_root"]).rglob("*.npy")), "copies are made elsewhere"


def test_what_a_plan_says(recipe_tree: dict[str, Any]) -> None:
    recipe = parse_recipe(recipe_tree)
    text = loading_text(recipe, SLOW, {"source-only": 0.1, "r1-cut": 0.05, "unknown": 1e-9}, cores=2)
    assert "one core loads 10 pairs of crops a second from these files, 200 from reduced copies" in text
    assert "r1-cut takes 40 pairs a second here: 4 loader processes keep up from the files, 1 from copies" in text
    assert "this machine has 2 core(s), so reduced copies (cache.folder=DIR) help" in text
    enough = loading_text(recipe, SLOW, {"r1-cut": 2.0}, {"r1-cut": 0.02}, cores=2)
    assert "r1-cut takes 1 pairs a second here: 1 loader process(es) keep up" in enough
    assert "100 pairs a second on one large GPU: 10 loader processes keep up from the files" in enough
    assert "help" not in enough
    assert loading_text(recipe, SLOW, {}).count("\n") == 0


def test_copies_only_where_loaders_cannot_keep_up(recipe_tree: dict[str, Any]) -> None:
    recipe = parse_recipe(recipe_tree)
    assert copies_needed(recipe, SLOW, {"r1-cut": 0.05}, num_workers=3)
    assert not copies_needed(recipe, SLOW, {"r1-cut": 0.05}, num_workers=4)
    assert not copies_needed(recipe, SLOW, {"r1-cut": 3.0}, num_workers=0)
    assert copies_needed(recipe, SLOW, {"r1-cut": 0.5}, num_workers=0), "loading is 40 % of a step"
    assert not copies_needed(recipe, SLOW, {}, num_workers=1), "nothing trains"


def test_automatic_number() -> None:
    assert [automatic_workers(cores, gpu=True) for cores in (1, 2, 12, 64)] == [1, 1, 11, 16]
    assert [automatic_workers(cores, gpu=False) for cores in (1, 2, 12)] == [0, 1, 2]


def test_processes_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    assert resolve_runtime("cpu", None, "auto").num_workers == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert resolve_runtime("cpu", None, "auto").num_workers == 0


def test_wrong_values_are_told_with_the_choice(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    for value in ("fast", "-1", "2.5"):
        with pytest.raises(RecipeError, match=r"runtime\.num_workers: expected .*number.* or 'auto', found"):
            load_recipe("quickstart", [f"runtime.num_workers={value}"])
    with pytest.raises(RecipeError, match="use: auto needs format: lossless"):
        load_recipe("quickstart", ["cache.folder=copies", "cache.format=jpeg", "cache.use=auto"])
