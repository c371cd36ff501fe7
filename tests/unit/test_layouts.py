"""Each known data set, laid out as its archives unpack: files found, labels read, a recipe run over it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from domainbridge.build.datasets import list_data, open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.config.load import dump_recipe
from domainbridge.config.schema import Recipe
from domainbridge.data.label_ids import MAPILLARY_V12_NAMES
from domainbridge.data.label_spaces import BUILT_IN, space_table
from domainbridge.data.layout_listing import known_layout, list_layout
from domainbridge.data.layouts.base import LAYOUTS, DirectoryScheme, Layout, register_layout, train_id_decoder
from domainbridge.errors import DataError, RecipeError
from domainbridge.run.run import run_recipe
from layout_trees import TREES, scene
from tiny_domain import RECIPE

LABELED = [name for name in TREES if name != "dark-zurich"]
TO_CAMVID = space_table(BUILT_IN["cityscapes19"], BUILT_IN["camvid11"])


def recipe_of(name: str, root: Path) -> Recipe:
    """Source: the set with its labels (GTA5 where it has none). Target and validation: the set's own."""
    source = name if name in LABELED else "gta5"
    target = {"name": "t", "dataset": name, "root": name}
    if name not in ("gta5", "synscapes", "synthia", "urbansyn", "camvid"):
        target["validation"] = {}
    return parse_recipe(
        {
            **RECIPE,
            "label_space": LAYOUTS[source].label_space,
            "sources": [{"name": "s", "dataset": source, "root": source}],
            "targets": [target],
            "rounds": 1,
            "training": {**RECIPE["training"], "steps": 1},
            "evaluation": {"label_free": {"images": 0}},
            "data_root": str(root),
        }
    )


def test_every_layout_has_a_tree() -> None:
    assert set(TREES) == set(LAYOUTS.names())


def test_an_unknown_data_set_is_named_with_its_place() -> None:
    with pytest.raises(
        RecipeError, match=r"sources\.g: data set 'gta' is unknown; known are acdc, .*wilddash2 \(and 'fol"
    ):
        known_layout("gta", "sources.g")


def test_a_layout_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAYOUTS, "_parts", {name: LAYOUTS[name] for name in LAYOUTS.names()})
    scheme, decoder = DirectoryScheme("RGB", "GT/LABELS"), train_id_decoder(BUILT_IN["cityscapes19"])
    register_layout("mine")(Layout("Mine", (scheme,), decoder, "cityscapes19", "unpack it"))
    TREES["synthia"](tmp_path)
    assert len(list_layout("mine", tmp_path, None, (), labeled=True).checked("here").images) == 4


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_runs_over_it(name: str, tmp_path: Path) -> None:
    for needed in {name, "gta5"}:
        TREES[needed](tmp_path / needed)
    recipe = recipe_of(name, tmp_path)
    assert run_recipe(recipe, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["stages"]["r1-distill"]["steps"] == 1
    if recipe.targets[0].validation is not None:
        scored = results["stages"]["r1-distill"]["targets"]["t"]
        assert {"sky", "road", "building", "car"} <= {k for k, iou in scored["iou"].items() if iou is not None}


@pytest.mark.parametrize("name", LABELED)
def test_labels_become_train_ids(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    splits = [split for split in LAYOUTS[name].splits if split in ("train", "val")] or [None]
    for split in splits:
        listing = list_layout(name, tmp_path, split, (), labeled=True)
        assert not listing.problems
        assert listing.labels is not None
        assert len(listing.images) >= 2
        decoder = LAYOUTS[name].decoder(tmp_path)
        drawn = [scene(number) for number in range(12)]
        expected = [TO_CAMVID[label] for label in drawn] if name.startswith("camvid") else drawn
        for image, label in zip(listing.images, listing.labels, strict=True):
            values = decoder.read(label)
            assert any(np.array_equal(values, one) for one in expected), f"{image}: {np.unique(values)}"


@pytest.mark.parametrize("name", TREES)
def test_a_missing_archive_says_what_to_unpack_where(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_data(recipe_of(name, tmp_path))
    assert str(tmp_path / name) in str(caught.value)
    if not name.startswith("mapillary-v2"):
        assert LAYOUTS[name].unpack in str(caught.value)


@pytest.mark.parametrize("name", LABELED)
def test_missing_labels_are_counted(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path)
    split = next((split for split in LAYOUTS[name].splits if split == "train"), None)
    listing = list_layout(name, tmp_path, split, (), labeled=True)
    assert listing.labels is not None
    listing.labels[0].unlink()
    fewer = list_layout(name, tmp_path, split, (), labeled=True)
    assert len(fewer.images) == len(listing.images) - 1
    assert f"1 of {len(listing.images)} images have no label" in fewer.problems[0]
    assert str(listing.images[0]) in fewer.problems[0]


def test_names_that_begin_otherwise_are_no_images(tmp_path: Path) -> None:
    TREES["urbansyn"](tmp_path)
    (tmp_path / "rgb/rgb_0002.png").rename(tmp_path / "rgb/0002.png")
    assert len(list_layout("urbansyn", tmp_path, None, (), labeled=True).images) == 3
    for path in (tmp_path / "rgb").glob("rgb_*"):
        path.unlink()
    problems = list_layout("urbansyn", tmp_path, None, (), labeled=True).problems
    assert problems == (f"no image below {tmp_path / 'rgb'} has a name like rgb_*",)
    TREES["urbansyn"](tmp_path)
    (tmp_path / "ss/ss_0003.png").unlink()
    (problem,) = list_layout("urbansyn", tmp_path, None, (), labeled=True).problems
    assert "with the expected label name ss_0003.png" in problem


def test_an_incomplete_set_is_noted_not_refused(tmp_path: Path) -> None:
    TREES["cityscapes"](tmp_path)
    listing = list_layout("cityscapes", tmp_path, "train", (), labeled=False)
    assert not listing.problems
    assert "4 images, but the complete cityscapes train has 2975" in listing.notes[0]
    listing = list_layout("cityscapes", tmp_path, "train", ("aachen_000000_000019_leftImg8bit",), labeled=False)
    assert len(listing.images) == 3
    assert not listing.problems
    misspelt = list_layout("cityscapes", tmp_path, "train", ("aachen",), labeled=False)
    assert "exclude_files names images that do not exist: 1 of 1" in misspelt.problems[0]


def test_excluding_everything_is_a_problem(tmp_path: Path) -> None:
    TREES["gta5"](tmp_path)
    listing = list_layout("gta5", tmp_path, None, tuple(f"{number:05}" for number in range(1, 5)), labeled=True)
    assert listing.problems == (f"exclude_files leaves no image of gta5 at {tmp_path}",)


def test_one_condition_of_acdc(tmp_path: Path) -> None:
    TREES["acdc"](tmp_path)
    assert len(list_layout("acdc", tmp_path, "train", (), labeled=True).images) == 4
    night = list_layout("acdc", tmp_path, "night/train", (), labeled=True)
    assert len(night.images) == 1
    assert "/night/train/" in str(night.images[0])


def test_the_older_and_the_newer_mapillary(tmp_path: Path) -> None:
    TREES["mapillary-v2"](tmp_path)
    listing = list_layout("mapillary", tmp_path, "val", (), labeled=True)
    assert listing.labels is not None
    assert "v1.2" in str(listing.labels[0])
    assert np.array_equal(LAYOUTS["mapillary"].decoder(tmp_path).read(listing.labels[0]), scene(0))


def test_mapillarys_own_class_list_is_believed(tmp_path: Path) -> None:
    names = [*reversed(MAPILLARY_V12_NAMES)]
    (tmp_path / "config.json").write_text(json.dumps({"labels": [{"readable": name} for name in names]}))
    decoder = LAYOUTS["mapillary"].decoder(tmp_path)
    assert decoder.table[names.index("Sky")] == 10
    (tmp_path / "config_v2.0.json").write_text("{}")
    with pytest.raises(DataError, match=r"config_v2\.0\.json: expected JSON with a list 'labels'"):
        LAYOUTS["mapillary-v2"].decoder(tmp_path)


def test_problems_of_all_domains_at_once(tmp_path: Path) -> None:
    TREES["cityscapes"](tmp_path / "cityscapes")
    (tmp_path / "cityscapes/gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png").unlink()
    recipe = parse_recipe(
        {
            **RECIPE,
            "label_space": "cityscapes19",
            "data_root": str(tmp_path),
            "sources": [{"name": "g", "dataset": "gta5", "root": "gta"}],
            "targets": [{"name": "c", "dataset": "cityscapes", "root": "cityscapes", "validation": {}}],
        }
    )
    data, problems = list_data(recipe)
    assert len(problems) == 2
    assert len(data.targets[0]) == 4
    assert len(data.validation["c"]) == 1


def test_the_resolved_recipe_of_a_run_opens_the_same_files(tmp_path: Path) -> None:
    TREES["cityscapes"](tmp_path / "cityscapes")
    recipe = recipe_of("cityscapes", tmp_path)
    resolved = parse_recipe(yaml.safe_load(dump_recipe(recipe)))
    first, second = open_data(recipe), open_data(resolved)
    assert [domain.images for domain in first.domains] == [domain.images for domain in second.domains]
    assert [domain.labels for domain in first.domains] == [domain.labels for domain in second.domains]
