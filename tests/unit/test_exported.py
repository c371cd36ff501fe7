"""Exported files as predictors: the same classes as the model folder, and no torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from domainbridge.data.label_spaces import label_space
from domainbridge.data.training_sizes import ImageSizes, TrainingSizes
from domainbridge.errors import DataError, ModelError, RecipeError
from domainbridge.evaluation.edge_padding import continued
from domainbridge.evaluation.exported import ExportedPredictor, load_exported
from domainbridge.evaluation.exported_file import ExportedConfig
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.evaluation.predictor import Predictor
from domainbridge.evaluation.sessions import padded
from domainbridge.evaluation.windows import Box
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from tiny_onnx import write_tiny_onnx

SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
SPACE = label_space("abc", ["a", "b", "c"])
ONCE = InferenceRule()
FLIP = InferenceRule(flip=True)


class TorchNetwork:
    """A session without a file."""

    def __init__(self, network: Segmenter) -> None:
        self.network = network

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self.network(torch.from_numpy(batch)).logits.numpy()


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    network = build_segmenter(SPEC).eval()
    with torch.no_grad():
        network.head.classifier.weight.normal_(std=20)  # so that no two logits are close
    return network


def pair(
    network: Segmenter, rule: InferenceRule = ONCE, resize: tuple[int, int, bool, int | None] | None = None
) -> tuple[Predictor, ExportedPredictor]:
    config = ModelConfig(SPEC, SPACE.name, SPACE.classes, SPACE.colors, resize)
    under_torch = Predictor(network, config, rule)
    exported = ExportedConfig(SPACE.name, SPACE.classes, SPACE.colors, resize, grid=under_torch.grid)
    return under_torch, ExportedPredictor(TorchNetwork(network), exported, rule)


def alike(under_torch: Predictor, exported: ExportedPredictor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The classes of noise under torch, after a comparison with those of the exported file."""
    maps = under_torch.maps([noise(*size)], confidence=True)[0]
    expected, sure = maps.classes, maps.confidence
    result = exported.class_maps([noise(*size)], confidence=True)[0]
    assert (result.classes == expected).mean() > 0.99
    assert sure is not None
    assert result.confidence is not None
    assert np.abs(result.confidence.astype(int) - sure).max() <= 2
    return expected


def noise(*size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(
    "rule",
    [
        InferenceRule(),
        InferenceRule(flip=True),
        InferenceRule(flip=True, scales=(1.5, 1.0)),
        InferenceRule(scales=(0.8,)),
    ],
    ids=["once", "flip", "flip and scales", "one scale"],
)
@pytest.mark.parametrize("resize", [None, (50, 30, True, None)], ids=["as stored", "resized"])
@pytest.mark.parametrize("size", [(37, 61), (1, 5)])
def test_the_classes_are_those_of_the_model_folder(
    network: Segmenter, rule: InferenceRule, resize: tuple[int, int, bool, int | None] | None, size: tuple[int, int]
) -> None:
    assert len(np.unique(alike(*pair(network, rule, resize), size))) > 1 or min(size) == 1


def test_large_images_go_through_windows_with_context(network: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    _, exported = pair(network)
    _, resized = pair(network, resize=(150, 100, False, None))
    image, small = noise(100, 150), noise(50, 75)
    whole = resized.class_map(small).classes
    with monkeypatch.context() as patch:
        for name, value in {"ONE_PIECE": 64 * 64, "_SIDE": 64, "CONTEXT": 16}.items():
            patch.setattr(f"domainbridge.evaluation.windows.{name}", value)
        windows = exported.windows_for(100, 150)
        assert windows is not None
        result = exported.class_map(image).classes
        assert (resized.class_map(small).classes == whole).mean() > 0.6, "less context than the network sees"
    assert len(windows.views) == 6
    seen = np.zeros(result.shape, int)
    for view, core in zip(windows.views, windows.cores, strict=True):
        alone = np.zeros_like(result)
        place = slice(view.top, view.bottom), slice(view.left, view.right)
        alone[place] = exported.class_map(image[place]).classes
        place = slice(core.top, core.bottom), slice(core.left, core.right)
        assert (result[place] == alone[place]).all()
        seen[place] += 1
    assert (seen == 1).all()


class OneSize(TorchNetwork):
    """A session that takes images of one size, one at a time."""

    def __init__(self, network: Segmenter, size: tuple[int, int]) -> None:
        super().__init__(network)
        self.size = size

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        assert batch.shape == (1, 3, *self.size)
        return super().logits(batch)


def of_one_size(
    network: Segmenter, rule: InferenceRule = ONCE, resize: tuple[int, int, bool, int | None] | None = None
) -> tuple[Predictor, ExportedPredictor]:
    """The model folder with sliding windows of 32x48 pixels, and a file for this size alone."""
    under_torch, exported = pair(network, replace(rule, window=(32, 48)), resize)
    red, green, blue = network.mean.flatten().tolist()
    config = replace(exported.config, size=(32, 48), batch=1, padding=(red, green, blue))
    return under_torch, ExportedPredictor(OneSize(network, (32, 48)), config, rule)


@pytest.mark.parametrize(
    "rule",
    [InferenceRule(), InferenceRule(flip=True, scales=(1.0, 1.5))],
    ids=["once", "flip and scales"],
)
@pytest.mark.parametrize("resize", [None, (90, 60, True, None)], ids=["as stored", "resized"])
@pytest.mark.parametrize("size", [(32, 48), (70, 101)])
def test_a_file_of_one_size_takes_sliding_windows(
    network: Segmenter, rule: InferenceRule, resize: tuple[int, int, bool, int | None] | None, size: tuple[int, int]
) -> None:
    under_torch, exported = of_one_size(network, rule, resize)
    alike(under_torch, exported, size)
    assert exported.windows_for(*size) == under_torch.windows_for(*size)


@pytest.mark.parametrize("size", [(20, 30), (50, 30), (1, 1)])
def test_smaller_images_are_padded_with_the_mean_color_and_cropped(network: Segmenter, size: tuple[int, int]) -> None:
    _, exported = of_one_size(network)
    image = noise(*size)
    result = exported.class_map(image).classes
    assert result.shape == size
    top = continued(image[:32], exported.config.grid)
    batch = padded(top.transpose(2, 0, 1)[None].astype(np.float32) / 255, (32, 48), exported.config.padding)
    assert np.allclose(batch[..., top.shape[1] :], network.mean.numpy(), atol=1e-6)
    logits = torch.from_numpy(OneSize(network, (32, 48)).logits(batch))
    large = torch.nn.functional.interpolate(logits, (32, 48), mode="bilinear")[0].argmax(0).numpy()
    alone = 10  # rows above the second window
    assert (result[:alone] == large[:alone, : size[1]][: size[0]]).mean() > 0.99
    assert (exported.maps([image])[0].classes == result).all()


def test_parts_of_a_file_of_one_size_cover_a_large_image(network: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    _, exported = of_one_size(network)
    image = noise(140, 150)
    whole = exported.class_map(image).classes
    monkeypatch.setattr("domainbridge.evaluation.windows.ONE_PIECE", 64 * 64)
    boxes: list[Box] = []
    for box, maps in exported.parts(image, (140, 150)):
        boxes.append(box)
        part = whole[box.top : box.bottom, box.left : box.right]
        assert (maps.classes == part).all(), "a window counts the same in every part"
    assert len(boxes) > 1
    assert sum(box.size[0] * box.size[1] for box in boxes) == whole.size


def test_a_fixed_size_survives_as_properties() -> None:
    config = ExportedConfig(SPACE.name, SPACE.classes, SPACE.colors, None, size=(32, 48), batch=1, padding=(0.5, 0, 1))
    properties = config.to_properties()
    assert ExportedConfig.from_properties(properties, "a.onnx") == config
    assert "(1, 3, 32, 48), this size only" in properties["input"]
    assert config.remark is not None
    assert "height 32 and width 48 only" in config.remark
    for name in ("size", "batch", "padding"):
        del properties[name]
    earlier = ExportedConfig.from_properties(properties, "a.onnx")
    assert (earlier.size, earlier.batch, earlier.remark) == (None, None, None)
    for wrong in ({"size": "[0, 3]"}, {"size": "[3]"}, {"batch": "0"}, {"padding": "[1]"}):
        with pytest.raises(ModelError, match="damaged"):
            ExportedConfig.from_properties(properties | wrong, "a.onnx")


def test_the_description_survives_as_properties() -> None:
    sizes = TrainingSizes((32, 32), None, ImageSizes(5, (30, 40), (60, 80), (90, 90), (0.5, 2.0)))
    config = ExportedConfig(SPACE.name, SPACE.classes, SPACE.colors, (50, 30, True, None), training_sizes=sizes)
    properties = config.to_properties()
    assert ExportedConfig.from_properties(properties, "a.onnx") == config
    del properties["training_sizes"]
    assert ExportedConfig.from_properties(properties, "a.onnx") == replace(config, training_sizes=None), "older files"
    with pytest.raises(ModelError, match=r"damaged .*training_sizes"):
        ExportedConfig.from_properties(properties | {"training_sizes": '{"crop": 3}'}, "a.onnx")


def test_what_an_exported_file_cannot_do_is_said(network: Segmenter, tmp_path: Path) -> None:
    _, exported = pair(network)
    small = ExportedPredictor(exported.session, replace(exported.config, smallest_side=32))
    with pytest.raises(DataError, match="31 pixels: the exported network takes 32 pixels a side"):
        small.class_map(noise(31, 64))
    with pytest.raises(DataError, match="31x64 pixels"):
        small.maps([noise(64, 31)], probabilities=True)
    small.rule = InferenceRule(scales=(1.0, 0.5))
    with pytest.raises(DataError, match=r"62 pixels at the scale 0\.5: the exported network takes 32 pixels a side"):
        small.class_map(noise(62, 64))
    with pytest.raises(RecipeError, match="--slide"):
        load_exported(tmp_path / "a.onnx", slide=True)
    with pytest.raises(RecipeError, match="--precision float16"):
        load_exported(tmp_path / "a.onnx", precision="float16")
    with pytest.raises(ModelError, match="no such file"):
        load_exported(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"b\.onnx: cannot be run as ONNX"):
        load_exported(tmp_path / "b.onnx")
    with pytest.raises(ModelError, match="not written by `domainbridge export`"):
        ExportedConfig.from_properties({}, "c.onnx")
    with pytest.raises(ModelError, match="description is damaged"):
        ExportedConfig.from_properties({**exported.config.to_properties(), "colors": "[[1, 2]]"}, "c.onnx")
    assert ExportedConfig.from_properties(exported.config.to_properties(), "c.onnx") == exported.config


def test_networks_that_give_no_numbers_are_refused(network: Segmenter) -> None:
    class Broken(TorchNetwork):
        def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().logits(batch) * np.float32(np.nan)

    _, exported = pair(network)
    with pytest.raises(ModelError, match="not finite"):
        ExportedPredictor(Broken(network), exported.config).class_map(noise(40, 40))


def test_a_graph_that_does_not_run_on_an_image_is_said(tmp_path: Path) -> None:
    write_tiny_onnx(tmp_path / "tiny.onnx")
    session = load_exported(tmp_path / "tiny.onnx", device="cpu").session
    assert session.logits(np.ones((2, 3, 4, 5), np.float32)).shape == (2, 3, 4, 5)
    with pytest.raises(ModelError, match="cannot run this file on images of 5x4 pixels"):
        session.logits(np.ones((1, 2, 4, 5), np.float32))


def test_want_of_memory_is_told_as_such(tmp_path: Path) -> None:
    class Full:
        def run(self, *_: object) -> None:
            raise RuntimeError(
                "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1073741824"
            )

    write_tiny_onnx(tmp_path / "tiny.onnx")
    exported = load_exported(tmp_path / "tiny.onnx", device="cpu")
    exported.session.session = Full()  # type: ignore[attr-defined]
    with pytest.raises(MemoryError, match="8x8 pixels does not fit into memory"):
        exported.class_map(np.zeros((8, 8, 3), np.uint8))


def test_a_gpu_that_onnxruntime_cannot_use_is_not_replaced_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu without CUDA's libraries goes on with the CPU."""
    session, providers = onnxruntime.InferenceSession, ["CUDAExecutionProvider", "CPUExecutionProvider"]
    write_tiny_onnx(tmp_path / "tiny.onnx")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: session(path, options, providers[1:])
    )
    with pytest.raises(RecipeError, match="'cuda:1': onnxruntime cannot use it"):
        load_exported(tmp_path / "tiny.onnx", device="cuda:1")
    assert load_exported(tmp_path / "tiny.onnx").session is not None
