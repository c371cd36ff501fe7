"""Every shipped recipe loads, plans, and starts: one step of its first stages on images of its own layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.build.datasets import data_root, open_data
from domainbridge.build.label_space import scoring_rule, training_space
from domainbridge.build.recipe import load_recipe
from domainbridge.config.domains import TargetConfig
from domainbridge.config.load import shipped_recipes
from domainbridge.config.schema import Recipe
from domainbridge.run.graph import final_stage, plan, stage_graph
from domainbridge.run.run import run_recipe
from layout_trees import TREES

NAMES = sorted(shipped_recipes())
SMALL = [
    *("quickstart", "quickstart-self-training", "city-to-camvid", "city-to-cityscapes", "city+airsim-to-cityscapes"),
    *("quickstart-masked-consistency", "quickstart-online", "city-to-camvid-few"),
    *("city-to-cityscapes+camvid", "city+airsim-to-cityscapes+camvid"),
]
PUBLISHED_SIZE = [
    *("gta-to-cityscapes", "gta+synscapes-to-cityscapes", "gta-to-cityscapes+mapillary"),
    *("synthia-to-cityscapes", "cityscapes-to-acdc"),
]
FOUNDATION = [
    *("gta-to-cityscapes-dinov2", "gta+synthia+urbansyn-to-cityscapes-dinov2"),
    "cityscapes-to-acdc+dark-zurich-dinov2",
]
ONE_ROUND = {*FOUNDATION, "city-to-camvid-few", "city+airsim-to-cityscapes+camvid"}


def test_the_promised_recipes_are_there() -> None:
    assert {*SMALL, *PUBLISHED_SIZE, *FOUNDATION} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_plans_all_rounds_without_its_images(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    scoring_rule(recipe)
    nodes = stage_graph(recipe, None)
    last = f"r{1 if name in ONE_ROUND else 2}-distill" if recipe.method == "ddb" else recipe.method
    assert nodes[-1].name == final_stage(nodes) == last
    assert all(item.status.action == "run" for item in plan(nodes, tmp_path))


@pytest.mark.parametrize("name", PUBLISHED_SIZE)
def test_published_size(name: str) -> None:
    recipe = load_recipe(name)
    assert (recipe.crop.width, recipe.crop.height, recipe.training.batch_size) == (512, 512, 4)
    assert recipe.model.backbone == "resnet101_v1c"
    assert recipe.training.steps == 40_000
    rates = {node.name: node.training.learning_rate for node in stage_graph(recipe, None) if node.training}
    assert rates["r1-cut"] == rates["r2-distill"] == 6e-5
    assert rates["r2-cut"] == rates["r2-class"] == 6e-6


@pytest.mark.parametrize("name", SMALL)
def test_small_recipes_stay_small(name: str) -> None:
    recipe = load_recipe(name)
    assert all(node.training.steps <= 4000 for node in stage_graph(recipe, None) if node.training)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def fabricate(recipe: Recipe, root: Path) -> None:
    """Images where the recipe looks for them, with label values that the layout promises."""
    for domain in (*recipe.sources, *recipe.targets):
        if domain.dataset != "folder":
            TREES[domain.dataset](root / domain.root)
            continue
        validation = domain.validation if isinstance(domain, TargetConfig) else None
        for split, labels in ((domain.split, "labels" if domain in recipe.sources else None), ("val.txt", "labels")):
            if split == "val.txt" and validation is None:
                continue
            fabricate_folder(root / domain.root, str(split), labels)


def fabricate_folder(root: Path, split: str, labels: str | None) -> None:
    generator = np.random.default_rng(0)
    stems = [f"{Path(split).stem}/{number}" for number in range(2)]
    for stem in stems:
        write(root / f"images/{stem}.png", generator.integers(0, 256, (96, 128, 3), np.uint8))
        if labels is not None:
            coarse = generator.integers(0, 19, (12, 16), np.uint8)
            write(root / f"{labels}/{stem}.png", coarse.repeat(8, 0).repeat(8, 1))
    (root / split).write_text("\n".join(stems))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("quickstart", "own-data"))])
def test_starts_on_its_layout(name: str, tmp_path: Path) -> None:
    fabricate(load_recipe(name), tmp_path / "data")
    arguments = [f"data_root={tmp_path / 'data'}", "training.batch_size=2", "stages={}"]
    arguments += [f"training.steps={3 if name in FOUNDATION else 1}"]
    arguments += ["crop.width=64", "crop.height=64", "runtime.num_workers=0", "model.weights=none"]
    arguments += ["evaluation.label_free.images=0"]  # hundreds of passes; tests/run/test_selection.py has them
    arguments += ["prototypes.passes=1"] if load_recipe(name).method == "ddb" else []
    if load_recipe(name).model.backbone == "resnet101_v1c":
        arguments += ["model.backbone=resnet18_v1c", "model.output_stride=32"]
    if name in FOUNDATION:  # the same kind of trunk, smaller; three steps, so that rates by layer and EMA are in use
        arguments += ["model.backbone=test_vit"]
    recipe = load_recipe(name, arguments)
    last = "self-training" if recipe.method == "self-training" else "r1-distill"
    assert run_recipe(recipe, tmp_path / "run", until=last)
    assert (tmp_path / "run" / last / "model" / "config.json").exists()
    results = json.loads((tmp_path / "run/results.json").read_text())["stages"][last]
    assert len(results["targets"]) == len(recipe.targets)
    assert ("mean" in results) == (len(recipe.targets) > 1)


def test_own_data_starts_on_folders_with_its_names(tmp_path: Path) -> None:
    fabricate_folder(tmp_path / "source", "train.txt", "labels")
    fabricate_folder(tmp_path / "target", "train.txt", None)
    arguments = [f"data_root={tmp_path}", "training.steps=1", "crop.width=64", "crop.height=64", "model.weights=none"]
    arguments += ["runtime.num_workers=0", "evaluation.label_free.images=0"]
    assert run_recipe(load_recipe("own-data", arguments), tmp_path / "run", until="r1-cut")


@pytest.mark.parametrize("name", [name for name in SMALL if name.startswith("quickstart")])
def test_quickstart_images_come_with_the_package(name: str) -> None:
    recipe = load_recipe(name)
    data = open_data(recipe)
    assert (len(data.source), len(data.target), len(data.validation["fog"])) == (120, 123, 30)
    label = data.sources[0][0].label
    assert label is not None
    assert set(np.unique(label)) <= {*range(len(training_space(recipe))), 255}


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("quickstart")])
def test_files_of_the_small_sets_pair_up(name: str) -> None:
    recipe = load_recipe(name, ["data_root=" + str(SHARED)] if SHARED.is_dir() else [])
    if not (data_root(recipe) / "city").is_dir():
        pytest.skip(f"no image sets at {data_root(recipe)}; set DOMAINBRIDGE_DATA")
    data = open_data(recipe)
    assert len(data.sources[0]) == 720
    assert data.targets[0].labels is None
    assert data.sources[0][3].label is not None


SHARED = Path(__file__).parents[3] / "shared" / "data"
