"""Cases that need more than `data check`: prediction, a run, a run that goes on, another platform."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from case_folder import ABSENT, CASES, copy_of
from domainbridge.build.networks import initial_student, model_config
from domainbridge.build.recipe import parse_recipe
from domainbridge.cli.app import app
from domainbridge.data.transforms import resize_image, resize_label
from domainbridge.errors import DomainbridgeError
from domainbridge.models.model_folder import save_model
from tiny_domain import RECIPE

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=ABSENT)

CaseFolder = Callable[[str], Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with drawn weights."""
    recipe, folder = parse_recipe(RECIPE), tmp_path_factory.mktemp("model") / "model"
    save_model(folder, initial_student(recipe, "any"), model_config(recipe))
    return folder


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseFolder:
    """A copy of a case, as the current folder."""

    def place(name: str) -> Path:
        folder = copy_of(CASES / name, tmp_path / "case")
        monkeypatch.chdir(folder)
        return folder

    return place


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def passes(*arguments: object) -> str:
    """The output of a command that must succeed."""
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refusal(*arguments: object) -> str:
    """The message of a command that must fail with a message of ours."""
    result = call(*arguments)
    assert isinstance(result.exception, DomainbridgeError), (result.output, result.exception)
    return str(result.exception)


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class TestPredict:
    def test_a_foreign_mask_is_not_replaced(self, case: CaseFolder, model: Path) -> None:
        folder = case("predict/ow")
        before = contents(folder)
        assert "masks/a.png: exists, and predict did not write it" in refusal(
            "predict", model, folder / "images", "--out", folder / "masks"
        )
        assert contents(folder) == before

    @pytest.mark.parametrize("name", ["dupe", "mix", "nest", "one", "twenty"])
    def test_inputs_are_not_replaced(self, name: str, case: CaseFolder, model: Path) -> None:
        folder = case(f"predict/{name}")
        before = contents(folder)
        call("predict", model, folder, "--out", folder)
        after = contents(folder)
        assert {path: after[path] for path in before} == before

    def test_images_with_one_stem(self, case: CaseFolder, model: Path, tmp_path: Path) -> None:
        assert "3 images segmented" in passes("predict", model, case("predict/dupe"), "--out", tmp_path / "out")
        assert {"x_jpg.png", "x_png.png", "x_overlay.png"} <= set(contents(tmp_path / "out"))

    def test_nested_folders(self, case: CaseFolder, model: Path, tmp_path: Path) -> None:
        passes("predict", model, case("predict/nest"), "--out", tmp_path / "out")
        assert {"a/x.png", "b/x.png", "b/c/x.png"} <= set(contents(tmp_path / "out"))

    @pytest.mark.parametrize(("name", "good", "broken"), [("one", 21, 12), ("mix", 21, 12), ("twenty", 20, 1)])
    def test_what_cannot_be_read_stops_nothing(
        self, name: str, good: int, broken: int, case: CaseFolder, model: Path, tmp_path: Path
    ) -> None:
        message = refusal("predict", model, case(f"predict/{name}"), "--out", tmp_path / "out")
        assert f"predict: {good} images were segmented, {broken} not" in message
        maps = [path for path in contents(tmp_path / "out") if path.endswith(".png")]
        assert len(maps) == good
        if name == "one":
            for problem in ("4 bands of uint16", "1 band of uint16; values 0 to 65280", "unreadable or truncated"):
                assert problem in message
            unusable = ("empty.jpg", "text.jpg", "trunc.jpg", "trunc.png", "rgb16.png", "rgb16.tif", "rgb16full.png")
            for file in (*unusable, "gray16.png", "gray16.tif", "ftw4x16.tif", "naip4.tif", "video.mp4"):
                assert file in message.partition("12 not")[2]

    def test_deep_and_multi_band_files_with_a_scale_and_bands(
        self, case: CaseFolder, model: Path, tmp_path: Path
    ) -> None:
        folder = case("predict/one")
        files = [folder / name for name in ("rgb16.png", "rgb16.tif", "rgb16full.png")]
        passes("predict", model, *files, "--out", tmp_path / "deep", "--scale", "0,65535")
        passes("predict", model, *files, "--out", tmp_path / "shares", "--percentiles", "2,98")
        for arguments in (("--percentiles", "2,101"), ("--percentiles", "2,98", "--scale", "0,1")):
            refusal("predict", model, *files, "--out", tmp_path / "shares", *arguments)
        passes("predict", model, folder / "naip4.tif", "--out", tmp_path / "bands", "--bands", "4,1,2")

    def test_hidden_folders_are_left_out(self, case: CaseFolder, model: Path, tmp_path: Path) -> None:
        folder = case("reports/01e-predict-hidden-folder")
        output = passes("predict", model, folder / "photos", "--out", tmp_path / "out")
        assert "hidden or of the system" in output
        assert not any("eaDir" in path or path.startswith(".ipynb") for path in contents(tmp_path / "out"))


def test_an_edited_label_of_the_same_size_runs_the_stage_again(case: CaseFolder) -> None:
    folder = case("reports/08a-label-edited-same-size")
    run = ("run", "r.yaml", "--until", "source-only")
    passes(*run)
    assert "done" in passes("plan", "r.yaml")
    path = folder / "data/src/labels/000.bmp"
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[10:14], "little")
    content[start:] = bytes(1 if value == 0 else value for value in content[start:])
    path.write_bytes(content)
    model = (folder / "runs/tiny/source-only/model/model.safetensors").read_bytes()
    assert "files of sources.s" in " ".join(passes("plan", "r.yaml").replace("│", " ").split())
    passes(*run)
    assert (folder / "runs/tiny/source-only/model/model.safetensors").read_bytes() != model
    assert (folder / "runs/tiny.1/source-only/model/model.safetensors").read_bytes() == model


@pytest.mark.parametrize("name", ["11j-hrnet", "11l-hrnet-crop-80"])
def test_a_backbone_of_some_sizes_only_is_trained_and_scored(name: str, case: CaseFolder) -> None:
    case(f"reports/{name}")
    keys = ["model.backbone=hrnet_w18_small", "model.weights=none", "model.output_stride=32", "training.steps=1"]
    keys += ["crop.width=80", "crop.height=80"] if name.endswith("80") else []
    assert "mIoU" in passes("run", "r.yaml", "--until", "source-only", *keys)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_without_fcntl(command: str, case: CaseFolder) -> None:
    case("reports/12-no-fcntl-windows")
    code = (
        f"import sys; sys.modules['fcntl'] = None; sys.argv = ['domainbridge', '{command}', 'r.yaml']; "
        "from domainbridge.cli.app import run_app; run_app()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=240, env=os.environ.copy())


def test_thin_poles_stay_where_they_are() -> None:
    """Report 23a: labels reduced by four agree with their images as far as nearest at the center can."""
    label = np.zeros((1024, 2048), np.uint8)
    for left in range(5, 2048, 37):
        label[:, left : left + 6] = 1
    image = np.repeat((label * 255)[..., None], 3, 2)
    one, two = resize_image(image, (256, 512))[..., 0] > 127, resize_label(label, (256, 512)) > 0
    assert (one & two).sum() / (one | two).sum() == pytest.approx(0.857, abs=1e-3)


def test_a_model_as_weights_and_as_the_start(case: CaseFolder) -> None:
    folder = case("reports/34-own-model-as-weights")
    step = ("run", "r.yaml", "--until", "source-only", "training.steps=1")
    passes(*step)
    model = folder / "runs/tiny/source-only/model"
    message = refusal(*step, f"model.weights={model}/model.safetensors", "--out", "runs/second")
    assert f"start from the model with init: {model}" in message
    assert "3 of 3 classes have the weights of" in " ".join(
        passes(*step, f"init={model}", "--out", "runs/second").split()
    )


@pytest.mark.parametrize("options", [(), ("--slide",), ("--flip",)])
def test_memory_of_predict_is_bounded(options: tuple[str, ...], case: CaseFolder, tmp_path: Path) -> None:
    """Report 10: 150 classes on two megapixels; a float32 tensor of all logits would take 1.2 GB."""
    folder = case("reports/10-memory-of-predict")
    shutil.copytree(folder / "photos", tmp_path / "photos")
    tree = {**RECIPE, "label_space": {"name": "many", "classes": [f"c{number}" for number in range(150)]}}
    recipe = parse_recipe(tree)
    save_model(tmp_path / "model", initial_student(recipe, "any"), model_config(recipe))
    code = (  # not ru_maxrss: it counts the parent's memory before the start of the program
        "import re\n"
        "from domainbridge.cli.app import app\n"
        f"app(['predict', {str(tmp_path / 'model')!r}, {str(tmp_path / 'photos/2mp.jpg')!r}, '--out', "
        f"{str(tmp_path / 'out')!r}, *{list(options)!r}], standalone_mode=False)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=240)
    assert int(result.stdout.split()[-1]) / 2**10 < 1500, "MiB, of which torch alone takes more than 500"
