"""`init` writes a recipe that `data check` passes and `run` trains on, without an editor."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from annotation_trees import STEMS, TREES, ids, photo, photos, save
from domainbridge.api import adapt
from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import load_recipe
from domainbridge.cli.app import app
from domainbridge.errors import DataError, RecipeError
from domainbridge.tools.init.classes import find_classes
from domainbridge.tools.init.inspect import find_domain
from domainbridge.tools.init.write import look, write_recipe
from domainbridge.tools.survey import survey_data

pytestmark = pytest.mark.previews
QUICK = ["labelme", "mask-per-class"]
NAMED = ["labelme", "coco", "yolo", "cvat-xml", "cvat-masks", "supervisely", "label-studio", "label-studio-png"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    for number in range(3):
        photo(tmp_path / f"target/photos/{number}.jpg", 10 + number)
    return tmp_path / "target"


def init(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["init", *map(str, arguments)], env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_that_data_check_passes(name: str, target: Path, tmp_path: Path) -> None:
    TREES[name](tmp_path / "source")
    recipe = tmp_path / "mine.yaml"
    result = init("--source", tmp_path / "source", "--target", target, "--out", recipe)
    assert result.exit_code == 0, result.output
    assert f"next: domainbridge data preview {recipe}" in result.output
    loaded = load_recipe(str(recipe))
    data = open_data(loaded)
    assert (len(data.source), len(data.target)) == (3, 3)
    assert survey_data(loaded, data, lambda text: None).all_errors == []
    classes = loaded.label_space.classes  # type: ignore[union-attr]
    if name in NAMED:
        assert set(classes) == {"background", "crop", "weed"}
    label = data.sources[0][0].label
    assert label is not None
    # The three areas of the drawn masks are three areas here, whatever the classes are called.
    middle = {label[20, 15], label[20, 45], label[45, 5]}
    assert len(middle) == 3


def train(name: str, target: Path, tmp_path: Path) -> None:
    TREES[name](tmp_path / "source")
    path, _ = write_recipe(look(tmp_path / "source", target, None), tmp_path / "mine.yaml")
    run = adapt(
        path,
        out=tmp_path / "run",
        overrides={
            **{"training.steps": 20, "training.warmup_steps": 1, "runtime.num_workers": 0},
            "evaluation.label_free.images": 0,
        },
        until="source-only",
    )
    assert run.finished
    assert (tmp_path / "run/source-only/model/model.safetensors").exists()
    assert (tmp_path / "run/preview.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", QUICK)
def test_run_trains_on_the_recipe(name: str, target: Path, tmp_path: Path) -> None:
    train(name, target, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TREES if name not in QUICK])
def test_run_trains_on_every_format(name: str, target: Path, tmp_path: Path) -> None:
    train(name, target, tmp_path)


class TestMasks:
    def test_splits_patterns_values_and_sizes_are_found(self, target: Path, tmp_path: Path) -> None:
        source = tmp_path / "source"
        for number in range(4):
            photo(source / f"leftImg8bit/train/x_{number}_leftImg8bit.png", number)
            save(source / f"gtFine/train/x_{number}_gtFine_labelIds.png", ids()[::2, ::2] * 10)
            save(source / f"gtFine/train/x_{number}_gtFine_instanceIds.png", ids()[::2, ::2] * 10)
        (source / "train.txt").write_text("train/x_0\ntrain/x_1\ntrain/x_2\n")
        inspected = look(source, target, None)
        folders = inspected.source.folders
        assert (folders.images, folders.labels) == ("leftImg8bit", "gtFine")
        assert folders.image_pattern == "{stem}_leftImg8bit"
        assert folders.label_pattern == "{stem}_gtFine_labelIds"
        assert inspected.source.split == "train.txt"
        assert inspected.source.keys == {"label_resize": "true"}
        classes = inspected.source.classes
        assert classes is not None
        assert list(classes.names) == [0, 10, 20]

    @pytest.mark.parametrize("kind", ["classes.txt", "id name", "json", "colors", "mixed columns", "with shares"])
    def test_class_lists(self, kind: str, tmp_path: Path) -> None:
        colors = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
        for stem in STEMS:
            save(tmp_path / f"labels/{stem}.png", colors[ids()] if kind in ("colors", "mixed columns") else ids())
        content = {
            "classes.txt": "soil\ncrop\nweed\n",
            "id name": "0: soil\n1: crop\n2: weed\n",
            "json": '{"soil": 0, "crop": 1, "weed": 2}',
            "colors": "name,r,g,b\nsoil,0,0,0\ncrop,200,0,0\nweed,0,200,0\n",
            "mixed columns": "0 0 0\tsoil\n200 0 0\tcrop\n0 200 0\tweed\n",
            "with shares": "Idx\tRatio\tTrain\tName\n0\t0.1\t7\tsoil\n1\t.2\t8\tcrop\n2\t3e-4\t9\tweed\n",
        }[kind]
        name = {"json": "classes.json", "colors": "class_dict.csv", "id name": "label_names.txt"}.get(
            kind, "classes.txt"
        )
        (tmp_path / name).write_text(content)
        labels = sorted((tmp_path / "labels").iterdir())
        inspected = find_classes(tmp_path, [name], labels)
        assert list(inspected.names.values()) == (
            ["soil", "weed", "crop"] if kind in ("colors", "mixed columns") else ["soil", "crop", "weed"]
        )
        assert inspected.named

    def test_smoothed_colors_are_not_classes(self, tmp_path: Path) -> None:
        colors = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
        image = Image.fromarray(np.kron(colors[ids()], np.ones((4, 4, 1), np.uint8))).resize((190, 140), 3)
        image.save(tmp_path / "m.png")
        inspected = find_classes(tmp_path, [], [tmp_path / "m.png"])
        assert inspected.nearest
        assert sorted(inspected.names) == [0, 0x00C800, 0xC80000]

    def test_names_are_given_or_numbered(self, target: Path, tmp_path: Path) -> None:
        photos(tmp_path / "source/images")
        for stem in STEMS:
            save(tmp_path / f"source/labels/{stem}.png", ids())
        arguments = ["--source", tmp_path / "source", "--target", target]
        assert init(*arguments, "--out", tmp_path / "a.yaml").exit_code == 0
        assert "class_0, class_1, class_2" in (tmp_path / "a.yaml").read_text()
        assert init(*arguments, "--out", tmp_path / "b.yaml", "--classes", "no, crop,weed").exit_code == 0
        assert load_recipe(str(tmp_path / "b.yaml")).label_space.classes == ("no", "crop", "weed")  # type: ignore[union-attr]
        assert init(*arguments, "--out", tmp_path / "d.yaml", "--classes", "ignore,crop,weed").exit_code == 0
        assert load_recipe(str(tmp_path / "d.yaml")).label_space.classes == ("crop", "weed")  # type: ignore[union-attr]
        assert "0: ignore     # ignore, which stands for no class" in (tmp_path / "d.yaml").read_text()
        with pytest.raises(RecipeError, match="2 names for 3 values"):
            init(*arguments, "--out", tmp_path / "c.yaml", "--classes", "crop,weed")

    def test_a_validation_set_in_the_folder_of_the_target(self, target: Path, tmp_path: Path) -> None:
        photos(tmp_path / "source/images")
        photos(target / "photos")
        for stem in STEMS:
            save(tmp_path / f"source/labels/{stem}.png", ids())
            save(target / f"masks/{stem}.png", ids() * 2)
        (target / "train.txt").write_text("0\n1\n2\n")
        (target / "val.txt").write_text("\n".join(STEMS))
        recipe = tmp_path / "mine.yaml"
        arguments = ["--source", tmp_path / "source", "--target", target, "--validation", target, "--out", recipe]
        assert init(*arguments, "--classes", "soil,crop,weed").exit_code == 0
        data = open_data(load_recipe(str(recipe)))
        assert (len(data.target), len(data.validation["target"])) == (3, 3)
        assert "4: ignore     # value 4, which the source does not have" in recipe.read_text()


def test_folders_that_the_recipe_does_not_name_are_told(tmp_path: Path) -> None:
    for place in ("rural", "urban"):
        photos(tmp_path / f"{place}/images_png")
        for stem in STEMS:
            save(tmp_path / f"{place}/masks_png/{stem}.png", ids())
    rows = {row[0]: row[1] for row in find_domain(tmp_path, "source").rows}
    assert rows["source images"].startswith("rural/images_png")
    assert rows["source not used"] == "urban/images_png (3 images), urban/masks_png (3 masks)"


def test_folders_without_images_or_labels_and_existing_recipes(target: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        init("--source", tmp_path / "nowhere", "--target", target)
    with pytest.raises(DataError, match="no labels found for the 3 images"):
        init("--source", target, "--target", target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found; found nothing"):
        init("--source", tmp_path / "empty", "--target", target)
    TREES["numpy"](tmp_path / "source")
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(RecipeError, match="exists"):
        init("--source", tmp_path / "source", "--target", target, "--out", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
