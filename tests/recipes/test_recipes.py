"""Every shipped recipe loads, plans, and starts: one step of its first stages on images of its own layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.config.load import load_recipe, shipped_recipes
from domainbridge.pipeline.datasets import data_root, open_data
from domainbridge.pipeline.execute import inspect_run, run_recipe
from domainbridge.pipeline.labels import scoring_rule, training_space
from domainbridge.pipeline.plan import final_stage

NAMES = sorted(shipped_recipes())
ROUNDS = 2


class Silent:
    def message(self, text: str) -> None: ...
    def stage_begins(self, stage: object, verdict: object) -> None: ...
    def progress(self, stage: str, progress: object) -> None: ...
    def stage_scored(self, stage: object, targets: object) -> None: ...


def test_the_promised_recipes_are_there() -> None:
    assert {"quickstart", "city-to-camvid", "city-to-cityscapes", "gta-to-cityscapes"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_plans_both_rounds_without_its_images(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    scoring_rule(recipe)
    planned = inspect_run(recipe, None, tmp_path)
    assert [item.stage.name for item in planned][-1] == final_stage(recipe) == f"r{ROUNDS}-distil"
    assert all(item.verdict.action == "run" for item in planned)


def test_published_size() -> None:
    recipe = load_recipe("gta-to-cityscapes")
    assert (recipe.crop.width, recipe.crop.height, recipe.training.batch_size) == (512, 512, 4)
    assert recipe.training.steps == 40_000
    assert recipe.training_of("r1-cut").learning_rate == recipe.training_of("r2-distil").learning_rate == 6e-5
    assert recipe.training_of("r2-cut").learning_rate == recipe.training_of("r2-class").learning_rate == 6e-6


def test_small_recipes_stay_small() -> None:
    for name in ("quickstart", "city-to-camvid", "city-to-cityscapes"):
        recipe = load_recipe(name)
        assert all(recipe.training_of(stage).steps <= 4000 for stage in recipe.trained_stages())


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def fabricate(name: str, root: Path) -> None:
    """Images where the recipe looks for them, with label values that the layout promises."""
    generator = np.random.default_rng(0)

    def image(path: str, size: tuple[int, int]) -> None:
        write(root / path, generator.integers(0, 256, (*size, 3), np.uint8))

    def label(path: str, size: tuple[int, int], highest: int) -> None:
        coarse = generator.integers(0, highest, (size[0] // 8, size[1] // 8), np.uint8)
        write(root / path, coarse.repeat(8, 0).repeat(8, 1))

    if name == "gta-to-cityscapes":
        for number in range(2):
            image(f"gta/images/{number:05}.png", (104, 192))
            label(f"gta/labels/{number:05}.png", (104, 192), 34)
            image(f"cityscapes/leftImg8bit/train/ulm/ulm_{number}_leftImg8bit.png", (64, 128))
        image("cityscapes/leftImg8bit/val/bonn/bonn_0_leftImg8bit.png", (64, 128))
        label("cityscapes/gtFine/val/bonn/bonn_0_gtFine_labelIds.png", (64, 128), 34)
        return
    target = {"city-to-camvid": "camvid", "city-to-cityscapes": "cityscapes256"}[name]
    for domain, split, labelled in (("city", "train", True), (target, "train", False), (target, "val", True)):
        stems = [f"{split}/{number}" for number in range(2)]
        for stem in stems:
            image(f"{domain}/images/{stem}.png", (96, 128))
            if labelled:
                label(f"{domain}/labels/{stem}.png", (96, 128), 19)
        (root / domain / f"{split}.txt").write_text("\n".join(stems))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quickstart"])
def test_starts_on_its_layout(name: str, tmp_path: Path) -> None:
    fabricate(name, tmp_path / "data")
    words = [f"data_root={tmp_path / 'data'}", "training.steps=1", "training.batch_size=2", "stages={}"]
    words += ["crop.width=64", "crop.height=64", "runtime.workers=0", "model.weights=none", "prototypes.passes=1"]
    if name == "gta-to-cityscapes":
        words.append("model.backbone=resnet18_v1c")
    recipe = load_recipe(name, words)
    assert run_recipe(recipe, tmp_path / "run", Silent(), until="r1-distil")
    assert (tmp_path / "run" / "r1-distil" / "model" / "config.json").exists()


def test_quickstart_images_come_with_the_package() -> None:
    recipe = load_recipe("quickstart")
    data = open_data(recipe)
    assert (len(data.source), len(data.target), len(data.validation["fog"])) == (120, 123, 30)
    label = data.sources[0].load(0).label
    assert label is not None
    assert set(np.unique(label)) <= {*range(len(training_space(recipe))), 255}


@pytest.mark.parametrize("name", ["city-to-camvid", "city-to-cityscapes"])
def test_files_of_the_small_sets_pair_up(name: str) -> None:
    recipe = load_recipe(name, ["data_root=" + str(SHARED)] if SHARED.is_dir() else [])
    if not (data_root(recipe) / "city").is_dir():
        pytest.skip(f"no image sets at {data_root(recipe)}; set DOMAINBRIDGE_DATA")
    data = open_data(recipe)
    assert len(data.source) == 720
    assert data.targets[0].labels is None
    assert data.sources[0].load(3).label is not None


SHARED = Path(__file__).parents[3] / "shared" / "data"
