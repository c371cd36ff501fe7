"""Export: a file that another runtime runs, checked before it is there."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import domainbridge
from domainbridge.cli.app import app
from domainbridge.data.label_spaces import label_space
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.errors import ExportError, ModelError, RecipeError
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.export.export import export_model
from domainbridge.export.functions import pool
from domainbridge.export.graph import Traceable
from domainbridge.models.backbones.padding import Padding
from domainbridge.models.backbones.traceable import traceable_padding
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.tools.open_model import open_model
from without_torch import without_torch

SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
SIZES = ((70, 97), (64, 128), (81, 66))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model/, images/ and labels/ (what the model says)."""
    folder = tmp_path_factory.mktemp("export")
    space = label_space("abc", ["a", "b", "c"])
    torch.manual_seed(0)
    network = build_segmenter(SPEC)
    with torch.no_grad():
        network.head.classifier.weight.normal_(std=20)
    save_model(folder / "model", network, ModelConfig(SPEC, space.name, space.classes, space.colors, None))
    for name in ("images", "labels"):
        (folder / name).mkdir()
    predictor = domainbridge.load_model(folder / "model", device="cpu")
    for number, size in enumerate(SIZES):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        Image.fromarray(image).save(folder / f"images/{number}.png")
        Image.fromarray(predictor.predict(image)).save(folder / f"labels/{number}.png")
    return folder


@pytest.fixture(scope="module")
def onnx_file(place: Path) -> Path:
    """A float32 ONNX file, made by the command."""
    out = place / "model.onnx"
    given = ["--images", str(place / "images"), "--labels", str(place / "labels")]
    result = CliRunner().invoke(app, ["export", str(place / "model"), "--format", "onnx", "--out", str(out), *given])
    assert result.exit_code == 0, result.output
    assert re.search(r"equal pixels +100\.000 %", result.output)
    assert re.search(r"mIoU +100\.00 %, of the model folder 100\.00 %", result.output)
    assert "times as fast" in result.output
    return out


def test_predict_runs_the_file_without_torch(place: Path, onnx_file: Path) -> None:
    command = ["predict", str(onnx_file), str(place / "images"), "--out", str(place / "masks"), "--confidence"]
    done = subprocess.run(without_torch(command), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number in range(len(SIZES)):
        with Image.open(place / f"masks/{number}.png") as mask, Image.open(place / f"labels/{number}.png") as label:
            assert (np.asarray(mask) == np.asarray(label)).all()
    assert len([*(place / "masks").glob("*_confidence.png")]) == len(SIZES)


def test_the_file_describes_itself(onnx_file: Path) -> None:
    import onnx

    graph = onnx.load(onnx_file)
    told = {each.key: each.value for each in graph.metadata_props}
    assert told["classes"] == '["a", "b", "c"]'
    assert "RGB in [0, 1]" in told["input"]
    assert [each.name for each in graph.graph.input] == ["image"]
    dynamic = [side.dim_param for side in graph.graph.input[0].type.tensor_type.shape.dim]
    assert all(dynamic[axis] for axis in (0, 2, 3)), "batch, height and width are free"


def test_an_earlier_export_is_replaced_and_no_other_file(place: Path, onnx_file: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(b"somebody's")
    with pytest.raises(RecipeError, match="`export` did not write it"):
        export_model(place / "model", foreign)
    assert foreign.read_bytes() == b"somebody's"
    wrong = {"format": "tflite", "precision": "int4", "opset": 3}
    with pytest.raises(RecipeError) as refused:
        export_model(place / "model", tmp_path / "a.onnx", **wrong)
    assert all(f"--{name} {value}" in str(refused.value) for name, value in wrong.items())
    with pytest.raises(RecipeError, match=r"size \(0, 64\): expected height and width"):
        export_model(place / "model", tmp_path / "a.onnx", size=(0, 64))
    wide = ["--format", "onnx", "--out", str(tmp_path / "a.onnx"), "--size", "64"]
    result = CliRunner().invoke(app, ["export", str(place / "model"), *wide])
    assert "expected WIDTHxHEIGHT such as 1024x512" in str(result.exception)
    with pytest.raises(RecipeError, match=r"ends in \.pt2"):
        export_model(place / "model", tmp_path / "a.onnx", format="torch")
    with pytest.raises(RecipeError, match="--images DIR"):
        export_model(place / "model", onnx_file, precision="int8")


def test_torch_export_and_its_check(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = export_model(place / "model", tmp_path / "model.pt2", format="torch", images=place / "images")
    assert done.check.equal_pixels == 100
    assert domainbridge.predict(tmp_path / "model.pt2", place / "images", tmp_path / "masks") == len(SIZES)
    forward = Traceable.forward
    monkeypatch.setattr(Traceable, "forward", lambda self, image: forward(self, image).flip(1))
    with pytest.raises(ExportError, match=r"differs too much(.|\n)*equal pixels") as failed:
        export_model(place / "model", tmp_path / "wrong.pt2", format="torch", images=place / "images")
    assert "is not written" in str(failed.value)
    assert {path.name for path in tmp_path.iterdir()} == {"model.pt2", "masks"}


def save_transformer(folder: Path, *, pad: bool = True) -> None:
    """A plain ViT with random weights, trained on crops of height 40 and width 56."""
    spec = ModelSpec("test_vit", 16, 3, HeadSpec("linear"))
    space = label_space("abc", ["a", "b", "c"])
    torch.manual_seed(0)
    network = build_segmenter(spec)
    with torch.no_grad():
        network.head.classifier.weight.normal_(std=20)
    crop = TrainingSizes((40, 56))
    config = ModelConfig(spec, space.name, space.classes, space.colors, None, training_sizes=crop, pad=pad)
    save_model(folder, network, config)


def test_a_model_that_stretches_its_logits_keeps_the_size_of_its_file(place: Path, tmp_path: Path) -> None:
    save_transformer(tmp_path / "vit", pad=False)
    out = tmp_path / "vit.pt2"
    result = export_model(tmp_path / "vit", out, format="torch", size=(40, 56), images=place / "images").check
    assert result.equal_pixels == 100
    exported = domainbridge.load_exported(out, device="cpu")
    assert (exported.config.size, exported.config.grid) == ((40, 56), 1)


def test_a_transformer_exports_for_one_size(place: Path, tmp_path: Path) -> None:
    save_transformer(tmp_path / "vit")
    with pytest.raises(ModelError, match=r"--size 97x70 is the size of most of the 3 --images") as refused:
        export_model(tmp_path / "vit", tmp_path / "a.onnx", images=place / "images")
    assert "cannot be exported for every image size" in str(refused.value)
    with pytest.raises(ModelError, match="--size 56x40 is the crop of the training"):
        export_model(tmp_path / "vit", tmp_path / "a.onnx")
    out, given = tmp_path / "vit.onnx", ["--images", str(place / "images"), "--size", "56x40"]
    result = CliRunner().invoke(app, ["export", str(tmp_path / "vit"), "--format", "onnx", "--out", str(out), *given])
    assert result.exit_code == 0, result.output
    assert re.search(r"equal pixels +100\.000 %", result.output)
    assert re.search(r"whole images +\d+\.\d+ % equal pixels", result.output)
    exported = domainbridge.load_exported(out, device="cpu")
    assert "the file is for 64x48" in result.output
    assert (exported.config.size, exported.config.batch, exported.config.grid) == ((48, 64), None, 16)
    folder = domainbridge.load_model(tmp_path / "vit", device="cpu")
    image = exported.read(place / "images/0.png")
    exact = image[:40, :56]
    assert (exported.class_map(exact).classes == folder.predict(exact)).all(), "in one piece"
    folder.rule = InferenceRule(window=(48, 64))
    assert (exported.class_map(image).classes == folder.predict(image)).mean() > 0.999, "in windows"
    told: list[str] = []
    assert domainbridge.predict(out, place / "images", tmp_path / "masks", report=told.append) == len(SIZES)
    assert [line for line in told if "takes images of height 48 and width 64 only" in line] == told


@pytest.mark.slow
def test_int8(place: Path, onnx_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    done = export_model(place / "model", out, precision="int8", images=place / "images", at_least=60)
    assert done.bytes < onnx_file.stat().st_size
    assert done.check.largest_difference > 0
    predictor = open_model(out, device="cpu")
    assert predictor.config.precision == "int8"


@pytest.mark.slow
def test_int8_of_a_transformer_leaves_sums_in_float32(place: Path, tmp_path: Path) -> None:
    import onnx

    save_transformer(tmp_path / "vit")
    out, images = tmp_path / "int8.onnx", place / "images"
    export_model(tmp_path / "vit", out, precision="int8", size=(40, 56), images=images, at_least=60)
    nodes = onnx.load(out).graph.node
    quantized = {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}
    made_by = {name: node.op_type for node in nodes for name in node.output}
    assert "MatMul" in {made_by.get(name) for name in quantized}
    normalized = {node.input[0] for node in nodes if node.op_type == "LayerNormalization"}
    assert {made_by[name] for name in normalized} == {"Add"}
    assert not quantized & normalized


class Fused(nn.Module):
    """Maps of strides 4 and 32 that are added: multiples of 32 work, and what rounds up to the same cells."""

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = nn.functional.avg_pool2d(image, 4, ceil_mode=True)
        deepest = nn.functional.avg_pool2d(fine, 8, ceil_mode=True)
        return [fine + nn.functional.interpolate(deepest, scale_factor=8), deepest]


@pytest.mark.parametrize("size", [(64, 96), (80, 80), (93, 67), (61, 70), (93, 95), (64, 97)])
def test_padding_as_arithmetic_is_padding_by_trial(size: tuple[int, int]) -> None:
    body, image = Fused(), torch.rand(1, 3, *size)
    by_trial, arithmetic = Padding(), traceable_padding(body)
    assert (arithmetic.grid, arithmetic.slack, arithmetic.strides) == (32, 3, (4, 32))
    expected, padded = by_trial(body, image), arithmetic(body, image)
    assert torch.equal(expected, padded)
    fine, deepest = body(padded)
    crops = (rule.cropped((fine, deepest), padded, size) for rule in (by_trial, arithmetic))
    assert all(torch.equal(one, other) for one, other in zip(*crops, strict=True))


def test_every_size_is_taken_by_most_backbones() -> None:
    backbone = build_segmenter(SPEC).backbone
    assert traceable_padding(backbone.body, backbone.map_strides).grid is None


@pytest.mark.parametrize("cells", [1, 2, 3, 6, (2, 5)])
@pytest.mark.parametrize("size", [(2, 3), (7, 11), (6, 12)])
def test_pooling_for_any_size_is_that_of_torch(cells: int | tuple[int, int], size: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, *size)
    assert torch.allclose(pool(maps, cells), nn.functional.adaptive_avg_pool2d(maps, cells), atol=1e-6)
