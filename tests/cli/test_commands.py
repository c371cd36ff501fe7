"""The command line: exit codes, streams, and what each verb writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from command_line import call
from domainbridge.config.load import shipped_recipes
from domainbridge.data.label_spaces import BUILT_IN
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from layout_trees import TREES


def process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, as in a terminal."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    command = [sys.executable, "-m", "domainbridge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=900, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> tuple[Path, Path]:
    """(recipe file, run folder) after a one-round run from the command line."""
    from tiny_domain import RECIPE

    folder = tmp_path_factory.mktemp("cli")
    tree = {**RECIPE, "data_root": str(generated_data), "rounds": 1, "source_only": False}
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tree))
    result = process("run", recipe, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "r1-distill: fog mIoU" in result.stderr
    return recipe, folder / "runs" / "tiny"


def test_help_names_the_verbs_and_loads_no_torch() -> None:
    result = process("--help")
    assert result.returncode == 0
    for verb in ("run", "plan", "recipes", "evaluate", "predict", "suggest", "data", "doctor"):
        assert verb in result.stdout
    code = "import sys, domainbridge.cli.app; print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"


def test_every_model_of_a_run_has_a_card(done: tuple[Path, Path]) -> None:
    for stage in ("r1-cut/model", "r1-class/model", "r1-distill/model", "model"):
        card = (done[1] / stage / "README.md").read_text(encoding="utf-8")
        assert "| source | clear | folder | 12 | not recorded |" in card
        assert "mIoU on fog: " in card


def test_plan_says_what_would_run_and_why(done: tuple[Path, Path]) -> None:
    recipe, folder = done
    result = call("plan", recipe, "--out", folder)
    assert result.returncode == 0
    assert result.stdout.count("done") >= 4
    assert "final model: that of r1-distill, the last stage" in result.stdout
    selected = call("plan", recipe, "selection=agreement", "--out", folder).stdout
    assert "final model: that with the largest agreement (selection) of r1-distill" in selected
    changed = call("plan", recipe, "stages.r1-class.steps=5", "--out", folder).stdout
    assert "training.steps 4 -> 5" in changed
    assert "min" in changed, "time is estimated from the steps of this folder"


def test_plan_probes_what_is_left(done: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, folder = done
    before = sorted(folder.rglob("*"))
    result = call("plan", recipe, "--probe", "--out", tmp_path / "new", "rounds=1")
    assert result.returncode == 0, result.stderr
    assert "a few real steps of each kind on this device" in " ".join(result.stdout.split())
    assert not (tmp_path / "new").exists()
    assert sorted(folder.rglob("*")) == before


def test_suggest_writes_a_list_a_picture_and_tasks(done: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = done
    result = call("suggest", folder, "--count", "3", "--out", tmp_path / "to-label")
    assert result.returncode == 0, result.stderr
    assert "disagreement of r1-cut and r1-class" in result.stderr
    names = (tmp_path / "to-label" / "split.txt").read_text().split()
    assert len(names) == 3
    assert [
        task["data"]["image"].rpartition("=")[2]
        for task in json.loads((tmp_path / "to-label" / "label-studio.json").read_text())
    ] == names
    with Image.open(tmp_path / "to-label" / "sheet.jpg") as sheet:
        assert sheet.width == 1080
    (tmp_path / "to-label" / "cvat.xml").write_text("a person's")
    refused = call("suggest", folder, "--out", tmp_path / "to-label")
    assert refused.returncode == 2
    assert "cvat.xml" in refused.stderr
    assert call("suggest", tmp_path, "--out", tmp_path / "other").returncode == 2


def test_running_again_does_nothing(done: tuple[Path, Path]) -> None:
    recipe, folder = done
    result = call("run", recipe, "--out", folder)
    assert result.returncode == 0
    assert result.stderr.count("done already") == 4


def test_predict_keeps_sizes_and_names(done: tuple[Path, Path], generated_data: Path, tmp_path: Path) -> None:
    _, folder = done
    (tmp_path / "in" / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, size in (("in/one.png", (51, 33)), ("in/deep/two.jpg", (20, 90)), ("three.png", (7, 5))):
        Image.fromarray(generator.integers(0, 255, (*size, 3), np.uint8)).save(tmp_path / name)
    arguments = ("predict", folder / "model", tmp_path / "in", tmp_path / "three.png", "--out", tmp_path / "out")
    result = call(*arguments, "--overlay", "--confidence")
    assert result.returncode == 0, result.stderr
    sizes = {"one": (33, 51), "deep/two": (90, 20), "three": (5, 7)}
    for name, size in sizes.items():
        for ending in (".png", "_overlay.jpg", "_confidence.png"):
            with Image.open(tmp_path / "out" / f"{name}{ending}") as image:
                assert image.size == size
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.mode == "P"
            assert np.asarray(image).max() <= 2
    assert not list((tmp_path / "out").rglob("*.tmp*"))


def test_predict_lists_every_wrong_input(done: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    result = call("predict", done[1] / "model", tmp_path / "a.txt", tmp_path / "none", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "a.txt: not an image" in result.stderr
    assert "none: no such file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_predict_never_overwrites_an_input(done: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.png", "a_confidence.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    before = (tmp_path / "a.png").read_bytes()
    result = call("predict", done[1] / "model", tmp_path, "--out", tmp_path)
    assert result.returncode == 2
    assert "would overwrite the input" in result.stderr
    assert (tmp_path / "a.png").read_bytes() == before
    both = call("predict", done[1] / "model", tmp_path, "--out", tmp_path / "out", "--confidence")
    assert both.returncode == 0
    assert "a_confidence.png as a_confidence_png.png" in both.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 4, "two files of each image, under distinct names"


def test_predict_replaces_nothing_that_it_did_not_write(done: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("images/a.jpg", "masks/a.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    before = (tmp_path / "masks/a.png").read_bytes()
    result = call("predict", done[1] / "model", "images", "--out", "masks", cwd=tmp_path)
    assert result.returncode == 2
    assert "masks/a.png: exists, and predict did not write it" in result.stderr
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.png"]
    assert (tmp_path / "masks/a.png").read_bytes() == before
    for _ in range(2):
        assert call("predict", done[1] / "model", "images", "--out", "images/out", cwd=tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "images/out").iterdir()} == {"a.png", ".domainbridge-predict.jsonl"}


def test_predict_goes_on_after_a_broken_image(done: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("broken")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / "b.png")
    result = call("predict", done[1] / "model", tmp_path / "in", "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "1 images were segmented, 1 not" in result.stderr
    assert (tmp_path / "out" / "b.png").exists()


def test_evaluate_on_a_known_data_set(tmp_path: Path) -> None:
    TREES["cityscapes"](tmp_path / "city")
    spec = ModelSpec("test_efficientnet", 16, 19, HeadSpec(channels=16, dilations=(1, 2)))
    space = BUILT_IN["cityscapes19"]
    save_model(
        tmp_path / "model", build_segmenter(spec), ModelConfig(spec, space.name, space.classes, space.colors, None)
    )
    arguments = ("evaluate", tmp_path / "model", "--dataset", "cityscapes", "--root", tmp_path / "city")
    result = call(*arguments, "--subset", "synthia13", "--label-scale", "0.5", "--json", tmp_path / "scores.json")
    assert result.returncode == 0, result.stderr
    scored = json.loads((tmp_path / "scores.json").read_text())["targets"]["cityscapes"]
    assert scored["images"] == 2
    assert scored["iou"]["road"] is not None
    assert set(scored["subsets"]) == {"synthia13"}
    assert (
        "give a recipe, or images and labels, or a data set and its root"
        in call(*arguments[:2], "--dataset", "cityscapes").stderr
    )
    assert "unpack leftImg8bit_trainvaltest.zip" in call(*arguments[:-1], tmp_path / "nowhere").stderr


def test_evaluate_agrees_with_the_run(done: tuple[Path, Path], generated_data: Path, tmp_path: Path) -> None:
    _, folder = done
    validation = generated_data / "target-val"
    arguments = ("--images", validation / "images", "--labels", validation / "labels", "--json", tmp_path / "s.json")
    result = call("evaluate", folder / "model", *arguments)
    assert result.returncode == 0, result.stderr
    assert "mean" in result.stdout
    scored = json.loads((tmp_path / "s.json").read_text())["targets"]["images"]
    of_run = json.loads((folder / "results.json").read_text())["stages"]["r1-distill"]["targets"]["fog"]
    assert scored["miou"] == pytest.approx(of_run["miou"])
    assert "pixels without class" in result.stdout
    assert scored["ignored"] == of_run["ignored"] == 0
    slid = call("evaluate", folder / "model", *arguments, "--slide", "--flip", "--scales", "0.5,1")
    assert slid.returncode == 0
    mapped = call("evaluate", folder / "model", *arguments, "--label-map", "0=ground,1=box,2=ignore")
    assert mapped.returncode == 0, mapped.stderr
    assert json.loads((tmp_path / "s.json").read_text())["targets"]["images"]["ignored"] > 5
    for wrong, message in (
        (("--json", tmp_path), "is a folder"),
        (("--json", tmp_path / "none/s.json"), "there is no folder"),
        (("--label-scale", "0.5"), "a data set and its root"),
        (("--scales", "1,0"), "--scales 1,0: expected factors from 0.1 to 10, found 0"),
        (("--scales", "1;2"), "--scales 1;2: expected numbers with commas between"),
    ):
        refused = call("evaluate", folder / "model", *arguments, *wrong)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_evaluate_by_recipe_maps_labels_as_the_run_did(
    done: tuple[Path, Path], generated_data: Path, tmp_path: Path
) -> None:
    """Labels with ids of their own, means over some classes: what a folder of labels cannot say."""
    recipe, folder = done
    tree = yaml.safe_load(recipe.read_text())
    labels = generated_data / "target-val/labels"
    for path in labels.iterdir():
        native = 10 * (1 + np.asarray(Image.open(path)))
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.fromarray(native.astype(np.uint8)).save(tmp_path / "own" / path.name)
    validation = {"images": "images", "labels": str(tmp_path / "own"), "root": "target-val"}
    tree["targets"][0]["validation"] = {**validation, "label_map": {10: "ground", 20: "box", 30: "sky"}}
    tree["evaluation"] = {"exclude_classes": ["sky"]}
    tree["sources"][0]["root"] = "not here"
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(tree))
    result = call("evaluate", folder / "model", tmp_path / "own.yaml", "--json", tmp_path / "s.json")
    assert result.returncode == 0, result.stderr
    scored = json.loads((tmp_path / "s.json").read_text())["targets"]["fog"]
    of_run = json.loads((folder / "results.json").read_text())["stages"]["r1-distill"]["targets"]["fog"]
    assert scored["iou"] == pytest.approx(of_run["iou"])
    assert scored["miou"] == pytest.approx((of_run["iou"]["ground"] + of_run["iou"]["box"]) / 2)
    changed = (tmp_path / "own.yaml", f"data_root={generated_data}", "evaluation.exclude_classes=[sky, box]")
    assert call("evaluate", folder / "model", *changed, "--json", tmp_path / "s.json").returncode == 0
    scored = json.loads((tmp_path / "s.json").read_text())["targets"]["fog"]
    assert scored["miou"] == pytest.approx(of_run["iou"]["ground"])
    both = call("evaluate", folder / "model", recipe, "--images", labels)
    assert both.returncode == 2
    other = call("evaluate", folder / "model", "quickstart")
    assert other.returncode == 2
    assert "predicts ground, box, sky" in other.stderr


def test_recipes(tmp_path: Path) -> None:
    listed = call("recipes", "list").stdout
    for name in shipped_recipes():
        assert name in listed
    shown = call("recipes", "show", "quickstart").stdout
    assert shown == shipped_recipes()["quickstart"].read_text()
    assert call("recipes", "copy", "quickstart", cwd=tmp_path).returncode == 0
    assert (tmp_path / "quickstart.yaml").read_text() == shown
    assert call("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path).returncode == 0
    assert '\nname: "mine"\n' in (tmp_path / "mine.yaml").read_text()
    assert call("recipes", "copy", "quickstart", "2024.yaml", cwd=tmp_path).returncode == 0
    assert call("plan", "2024.yaml", cwd=tmp_path).returncode == 0
    for name, message in (("my recipe.yaml", "letters, digits"), ("none/mine.yaml", "there is no folder")):
        refused = call("recipes", "copy", "quickstart", name, cwd=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr
    again = call("recipes", "copy", "quickstart", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_data_cache(done: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, _ = done
    refused = call("data", "cache", recipe)
    assert refused.returncode == 2
    assert "cache.folder: is not set" in refused.stderr
    for _ in range(2):
        result = call("data", "cache", recipe, f"cache.folder={tmp_path / 'copies'}")
        assert result.returncode == 0, result.stderr
        assert "GiB of lossless copies" in result.stderr
    images_of_target = yaml.safe_load(Path(recipe).read_text())["data_root"] + "/target/images/copies"
    nested = call("data", "cache", recipe, f"cache.folder={images_of_target}")
    assert nested.returncode == 2
    assert "copies would be taken for images" in nested.stderr
    images = [np.load(path) for path in (tmp_path / "copies").glob("??/*.npy")]
    assert {image.shape for image in images} == {(40, 48, 3), (40, 48)}


def test_doctor_and_layouts() -> None:
    assert "torch" in call("doctor").stdout
    assert "cityscapes" in call("data", "layouts").stdout


class TestBadInput:
    """One clear message on stderr, exit code 2, nothing touched."""

    @pytest.fixture
    def broken(self, generated_data: Path, tmp_path: Path) -> tuple[Path, dict]:
        from tiny_domain import RECIPE

        shutil.copytree(generated_data, tmp_path / "data")
        return tmp_path, {**RECIPE, "data_root": str(tmp_path / "data")}

    def refused(self, folder: Path, tree: dict, *arguments: str) -> str:
        (folder / "r.yaml").write_text(yaml.safe_dump(tree))
        result = call("run", folder / "r.yaml", "--out", folder / "run", *arguments)
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert not (folder / "run").exists()
        return result.stderr

    def test_unknown_key(self, broken: tuple[Path, dict]) -> None:
        assert "did you mean 'steps'" in self.refused(*broken, "training.step=3")

    def test_what_cannot_be_trained(self, broken: tuple[Path, dict]) -> None:
        message = self.refused(*broken, "crop={width: 16, height: 16}", "training.batch_size=1")
        assert "1 rows of 16x16 pixels at a time (batch_size 1, gradient_accumulation_steps 1) are too few" in message

    def test_places_that_cannot_be_written(self, done: tuple[Path, Path], tmp_path: Path) -> None:
        recipe, folder = done
        (tmp_path / "file").write_text("mine")
        for arguments in (
            ("run", recipe, "--out", tmp_path / "file/run"),
            ("predict", folder / "model", tmp_path, "--out", tmp_path / "file"),
            ("data", "stats", recipe, "--out", tmp_path / "none/shares.png"),
            ("data", "pack", recipe, "--out", tmp_path / "file/shards"),
        ):
            result = call(*arguments)
            assert result.returncode == 2, result.stderr
            assert "--out" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_missing_folder(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        shutil.rmtree(folder / "data" / "target")
        message = self.refused(folder, tree)
        assert "targets.fog: images: no such folder" in message

    def test_image_without_label(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        (folder / "data/source/labels/004.png").unlink()
        assert "1 of 12 have no file" in self.refused(folder, tree)

    def test_all_broken_files_at_once(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        labels = folder / "data/source/labels"
        Image.fromarray(np.full((40, 48), 9, np.uint8)).save(labels / "001.png")
        Image.fromarray(np.zeros((10, 10), np.uint8)).save(labels / "002.png")
        Image.fromarray(np.tile(np.uint8([9, 0, 0]), (40, 48, 1))).save(labels / "003.png")
        image = folder / "data/target/images/005.png"
        image.write_bytes(image.read_bytes()[:300])
        message = self.refused(folder, tree)
        assert "4 file(s) cannot be used" in message
        assert "001.png: label value outside scene: 9 (100.00% of the pixels)" in message
        assert "002.png: 10x10 pixels, but its image" in message
        assert "003.png: expected a one-channel" in message
        assert "005.png: unreadable or truncated" in message

    def test_labels_without_any_class(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        source = {**tree["sources"][0], "label_map": {77: "sky"}}
        assert "no pixel of any label has a class" in self.refused(folder, {**tree, "sources": [source]})

    def test_a_broken_file_met_by_a_worker_is_named_without_a_traceback(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        (folder / "r.yaml").write_text(yaml.safe_dump({**tree, "runtime": {"num_workers": 1}}))
        assert call("run", folder / "r.yaml", "--out", folder / "run", "--until", "source-only").returncode == 0
        for path in (folder / "data/source/images").glob("*.png"):
            size = path.stat().st_size
            path.write_bytes(b"x" * size)  # names and sizes as before: the check's memory still holds
        result = process("run", folder / "r.yaml", "--out", folder / "run", "--until", "r1-cut")
        assert result.returncode == 2
        assert "unreadable or truncated" in result.stderr
        assert "Traceback" not in result.stderr

    def test_unknown_backbone_and_weights(self, broken: tuple[Path, dict]) -> None:
        assert "is unknown to timm" in self.refused(*broken, "model.backbone=test_efficientnett")
        assert "no such file" in self.refused(*broken, "model.weights=none.pth")

    def test_foreign_run_folder(self, broken: tuple[Path, dict], done: tuple[Path, Path]) -> None:
        folder, tree = broken
        (folder / "r.yaml").write_text(yaml.safe_dump({**tree, "name": "other"}))
        before = {path: path.stat().st_mtime_ns for path in done[1].rglob("*")}
        result = call("run", folder / "r.yaml", "--out", done[1])
        assert result.returncode == 2
        assert "belongs to recipe 'tiny'" in result.stderr
        assert {path: path.stat().st_mtime_ns for path in done[1].rglob("*")} == before

    def test_model_of_another_architecture(self, done: tuple[Path, Path], tmp_path: Path) -> None:
        shutil.copytree(done[1] / "model", tmp_path / "m")
        config = json.loads((tmp_path / "m/config.json").read_text())
        config["spec"]["num_classes"] = 7
        (tmp_path / "m/config.json").write_text(json.dumps(config))
        result = call("predict", tmp_path / "m", done[0].parent, "--out", tmp_path / "out")
        assert result.returncode == 2

    def test_non_finite_loss_exits_with_1(self, broken: tuple[Path, dict]) -> None:
        folder, tree = broken
        (folder / "r.yaml").write_text(yaml.safe_dump(tree))
        result = process("run", folder / "r.yaml", "--out", folder / "run", "training.learning_rate=1e30")
        assert result.returncode == 1
        assert "stage source-only, step" in result.stderr
        assert "not finite" in result.stderr


def test_data_pack(done: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, _ = done
    result = call("data", "pack", recipe, "--out", tmp_path / "shards")
    assert result.returncode == 0, result.stderr
    assert "images in 1 shards" in result.stderr
    tree = yaml.safe_load(Path(recipe).read_text()) | yaml.safe_load(result.stdout)
    (tmp_path / "sharded.yaml").write_text(yaml.safe_dump(tree))
    planned = call("plan", tmp_path / "sharded.yaml", "--out", tmp_path / "run")
    assert planned.returncode == 0, planned.stderr
    again = call("data", "pack", recipe, "--out", tmp_path / "shards")
    assert again.returncode == 2
    assert "shards are there already" in again.stderr
