"""Validation images in two parts, by a hash of their names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domainbridge.build.datasets import list_data, open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.dataset import FileDataset
from domainbridge.data.hold_out import hold_out
from domainbridge.errors import DataError
from tiny_domain import write_domain


def labeled(folder: str, names: list[str]) -> FileDataset:
    images, labels = (tuple(Path(folder) / kind / name for name in names) for kind in ("images", "labels"))
    return FileDataset("val", images, labels, notes=("three files left out",))


def names_of(dataset: FileDataset) -> list[str]:
    return [path.as_posix().partition("/images/")[2] for path in dataset.images]


NAMES = [f"{day}/{number:03}.png" for day in ("monday", "tuesday") for number in range(50)]


def parts(names: list[str], share: float = 0.3, folder: str = "/data") -> tuple[list[str], list[str]]:
    dataset = labeled(folder, names)
    kept, held = hold_out(dataset, (Path(folder) / "images", Path(folder)), share)
    assert kept.labels is not None
    assert held.labels is not None
    for part in (kept, held):
        assert [path.name for path in part.images] == [path.name for path in part.labels or ()]
    return names_of(kept), names_of(held)


def test_every_image_is_in_one_part_and_the_share_is_exact() -> None:
    kept, held = parts(NAMES)
    assert (len(kept), len(held)) == (70, 30)
    assert sorted(kept + held) == sorted(NAMES)
    assert kept == [name for name in NAMES if name in kept], "the order of the files stays"
    assert {name.partition("/")[0] for name in held} == {"monday", "tuesday"}


def test_neither_order_nor_place_matters() -> None:
    _, held = parts(NAMES)
    assert set(parts(NAMES[::-1])[1]) == set(held)
    assert parts(NAMES, folder="/elsewhere/photos")[1] == held


def test_a_new_image_moves_at_most_one_other() -> None:
    _, held = parts(NAMES)
    _, after = parts([*NAMES, "wednesday/000.png"])
    assert len(set(held) - set(after)) <= 1


@pytest.mark.parametrize(("count", "share", "expected"), [(2, 0.01, (1, 1)), (3, 0.99, (1, 2)), (10, 0.25, (8, 2))])
def test_each_part_has_an_image(count: int, share: float, expected: tuple[int, int]) -> None:
    kept, held = parts(NAMES[:count], share)
    assert (len(kept), len(held)) == expected


def test_the_parts_are_told_apart() -> None:
    dataset = labeled("/data", NAMES)
    kept, held = hold_out(dataset, (Path("/data"),), 0.3)
    assert (kept.name, held.name) == ("val", "val (held out)")
    assert (kept.notes, held.notes) == (dataset.notes, ()), "told once"
    assert replace(kept, images=dataset.images, labels=dataset.labels) == dataset


def test_one_image_cannot_be_in_two_parts(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    write_domain(tmp_path / "one", 1, 5, foggy=True, labeled=True)
    (target,) = recipe_tree["targets"]
    target["validation"]["root"] = str(tmp_path / "one")
    recipe = parse_recipe({**recipe_tree, "evaluation": {"hold_out": 0.5}})
    with pytest.raises(DataError, match=r"evaluation\.hold_out: targets\.fog\.validation has one image"):
        open_data(recipe)


def test_a_section_test_leaves_the_validation_whole(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    write_domain(tmp_path / "test", 3, 5, foggy=True, labeled=True)
    (target,) = recipe_tree["targets"]
    both = {**target, "name": "both", "test": {"root": str(tmp_path / "test")}}
    tree = {**recipe_tree, "targets": [target, both], "evaluation": {"hold_out": 0.5}}
    data, problems = list_data(parse_recipe(tree))
    assert not problems
    assert {name: len(files) for name, files in data.validation.items()} == {"fog": 2, "both": 4}
    assert {name: len(files) for name, files in data.test.items()} == {"fog": 2, "both": 3}
