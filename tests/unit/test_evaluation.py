"""Confusion matrix, scores, inference on whole images and in windows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import domainbridge
from domainbridge.data.label_spaces import BUILT_IN, SUBSETS, label_space, space_table
from domainbridge.errors import DataError, RecipeError, TrainingError
from domainbridge.evaluation import windows
from domainbridge.evaluation.confusion import confusion_matrix, scores
from domainbridge.evaluation.evaluate import ScoringRule, score
from domainbridge.evaluation.inference import probabilities
from domainbridge.evaluation.inference_rule import InferenceRule
from domainbridge.evaluation.label_maps import read_label_map
from domainbridge.evaluation.predictor import Predictor
from domainbridge.evaluation.window_logits import apart, empty_apart
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig
from domainbridge.models.segmenter import ModelSpec, Segmentation, build_segmenter
from domainbridge.runtime.device import Runtime
from domainbridge.types import Sample
from one_image import class_map

values = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=40)


@given(st.data())
def test_iou_is_intersection_over_union(data: st.DataObject) -> None:
    label = torch.tensor(data.draw(values))
    guess = torch.tensor(data.draw(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=len(label), max_size=len(label))))
    actual = scores(confusion_matrix(label, guess, 3), ("a", "b", "c"), 1)
    counted = label != 255
    for k, name in enumerate("abc"):
        union = (((label == k) | (guess == k)) & counted).sum()
        expected = None if union == 0 else 100 * ((label == k) & (guess == k)).sum() / union
        assert actual.iou[name] == (None if expected is None else pytest.approx(float(expected)))


def test_absent_and_excluded_classes_are_not_in_the_mean() -> None:
    matrix = torch.tensor([[3, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    actual = scores(matrix, ("a", "b", "c"), 2, exclude_classes=("b",))
    assert actual.iou == {"a": 75.0, "b": 0.0, "c": None}
    assert actual.miou == 75.0
    assert scores(torch.zeros(2, 3, dtype=torch.int64), ("a", "b"), 0).miou is None


def test_means_over_subsets() -> None:
    matrix = torch.tensor([[3, 1, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    actual = scores(matrix, ("a", "b", "c"), 1, subsets={"first": ("a",), "with absent": ("b", "c"), "none": ("c",)})
    assert actual.subsets == {"first": 75.0, "with absent": pytest.approx(200 / 3), "none": None}
    assert [len(members) for members in SUBSETS.values()] == [16, 13]


CPU = torch.device("cpu")


class Pixelwise(torch.nn.Module):
    """Logits that depend on each pixel alone, at full resolution."""

    grid = 1

    def forward(self, image: torch.Tensor) -> Segmentation:
        return Segmentation(torch.cat([image[:, :1], 1 - image[:, :1], 0.5 * image[:, 1:2]], 1) * 5, image)


@given(st.integers(5, 40), st.integers(5, 40), st.integers(3, 20), st.booleans())
def test_windows_and_flips_agree_with_the_whole_image(height: int, width: int, window: int, flip: bool) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    whole = probabilities(Pixelwise(), image, (height, width), InferenceRule(), CPU)
    slid = probabilities(Pixelwise(), image, (height, width), InferenceRule((window, window), flip), CPU)
    assert torch.allclose(whole, slid, atol=1e-5)
    assert probabilities(Pixelwise(), image, (7, 9), InferenceRule((window, window)), CPU).shape == (1, 3, 7, 9)


@settings(max_examples=50)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 120), st.integers(1, 120)),
    st.sampled_from([None, (16, 24), (50, 50)]),
    st.booleans(),
)
def test_the_class_map_is_that_of_the_probabilities(
    shape: tuple[int, int], size: tuple[int, int], window: tuple[int, int] | None, flip: bool
) -> None:
    image = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), np.uint8)
    rule = InferenceRule(window, flip)
    actual = class_map(Pixelwise(), image, size, rule, CPU, confidence=True)
    every = probabilities(Pixelwise(), image, size, rule, CPU)[0]
    assert actual.classes.shape == actual.confidence.shape == size
    chosen = every.gather(0, actual.classes.long()[None])[0]
    assert torch.allclose(chosen, every.amax(0), atol=1e-5), "the most probable class, or one as probable"
    assert (actual.confidence.float() - 255 * every.amax(0)).abs().max() < 0.51
    assert torch.equal(class_map(Pixelwise(), image, size, rule, CPU).classes, actual.classes)


@settings(max_examples=50)
@given(st.integers(40, 200), st.integers(40, 200), st.booleans(), st.sampled_from([None, (24, 40)]), st.floats(0.3, 2))
@example(40, 193, False, None, 0.96875)  # a pixel exactly at the center of a cell
def test_windows_of_a_large_image_agree_with_the_whole_image(
    height: int, width: int, flip: bool, window: tuple[int, int] | None, scale: float
) -> None:
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    whole = class_map(Pixelwise(), image, size, InferenceRule(None, flip), CPU, confidence=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "ONE_PIECE", 32 * 32)
        patch.setattr(windows, "_SIDE", 64)
        patch.setattr(windows, "CONTEXT", 16)
        parts = class_map(Pixelwise(), image, size, InferenceRule(window, flip), CPU, confidence=True)
    assert (parts.classes != whole.classes).float().mean() < 0.01, "but for pixels with two equal classes"
    assert (parts.confidence.int() - whole.confidence.int()).abs().max() <= 1


def test_windows_give_the_whole_image_where_the_overlap_covers_what_the_network_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Convolutions(torch.nn.Module):
        """Stride 4; a pixel's logits depend on pixels up to 26 away."""

        grid = 1

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            coarse = [torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 8, 3, 2, 1)]
            self.layers = torch.nn.Sequential(*coarse, torch.nn.Tanh(), torch.nn.Conv2d(8, 3, 3, padding=4, dilation=4))

        def forward(self, image: torch.Tensor) -> Segmentation:
            logits = self.layers(image)
            return Segmentation(logits, logits)

    network, rule, size = Convolutions(), InferenceRule(), (160, 224)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole = class_map(network, image, size, rule, CPU, confidence=True)
    monkeypatch.setattr(windows, "ONE_PIECE", 32 * 32)
    monkeypatch.setattr(windows, "_SIDE", 96)
    monkeypatch.setattr(windows, "_REACH", 4)
    unequal = []
    for context in (32, 8):
        monkeypatch.setattr(windows, "CONTEXT", context)
        parts = class_map(network, image, size, rule, CPU, confidence=True)
        unequal.append(int((parts.classes != whole.classes).sum()))
    assert unequal[0] == 0
    assert unequal[1] > 0, "a smaller overlap is seen"


@pytest.mark.parametrize("shape", [(2, 3, 4), (0, 3), (5000,)])
def test_copies_outside_of_the_heap_are_copies(shape: tuple[int, ...]) -> None:
    values = torch.rand(shape)
    copy = apart(values)
    assert torch.equal(copy, values)
    values += 1
    assert values.numel() == 0 or not torch.equal(copy, values)
    assert empty_apart(shape, torch.uint8, CPU).shape == shape


def test_no_tensor_has_a_value_per_class_for_every_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that the network sees small is written large: 40 classes at 2000x2000 pixels were 640 MB."""
    largest = 0
    softmax = torch.Tensor.softmax

    def watched(self: torch.Tensor, dim: int) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, self.numel())
        return softmax(self, dim)

    class Coarse(torch.nn.Module):
        grid = 1

        def forward(self, image: torch.Tensor) -> Segmentation:
            cells = torch.nn.functional.avg_pool2d(image[:, :1], 4).repeat(1, 40, 1, 1)
            return Segmentation(cells * torch.arange(40).view(1, 40, 1, 1), cells)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    image = np.full((400, 400, 3), 200, np.uint8)
    scales = InferenceRule(scales=(0.5, 1.5))
    for rule in (InferenceRule(), InferenceRule(flip=True), InferenceRule((64, 64)), scales):
        actual = class_map(Coarse(), image, (2000, 2000), rule, CPU, confidence=True)
        assert (actual.classes == 39).all()
    assert 0 < largest < 40 * 2000 * 100


def test_windows_cover_large_images_once_and_lie_on_the_grid() -> None:
    for height, width in ((10000, 10000), (9000, 300), (2049, 2049), (20, 200000)):
        actual = windows.large_image_windows(height, width)
        assert sum(part.size[0] * part.size[1] for part in actual.parts) == height * width
        assert all(view.size[0] * view.size[1] <= windows.ONE_PIECE * 1.1 for view in actual.views)
        assert all(view.top % 32 == view.left % 32 == 0 for view in actual.views)
        assert len({(view.size[0] // 32, view.size[1] // 32) for view in actual.views}) == 1, "of one size"
        for view, core in zip(actual.views, actual.cores, strict=True):
            around = (core.top - view.top, view.bottom - core.bottom, core.left - view.left, view.right - core.right)
            at_edge = (core.top == 0, core.bottom == height, core.left == 0, core.right == width)
            assert all(edge or more >= windows.CONTEXT for more, edge in zip(around, at_edge, strict=True))
    assert not windows.fits_in_one_piece(1, 9000)
    assert windows.fits_in_one_piece(2048, 2048)


class Given:
    """Samples whose label is what the network above predicts, but for one image."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        image = np.random.default_rng(index).integers(0, 256, (12, 10, 3), np.uint8)
        label = (image[..., 0] < 128).astype(np.uint8) if index else np.full((12, 10), 255, np.uint8)
        return Sample(image, label, str(index))


def test_scoring_in_the_own_and_in_a_coarser_space() -> None:
    space = label_space("three", ["bright", "dark", "green"])
    network = Pixelwise().train()
    rule = ScoringRule(space, space_table(space, space))
    actual = score(network, Given(), rule, Runtime(torch.device("cpu"), 0))
    assert actual.images == 3
    assert actual.iou["dark"] > 80
    assert actual.ignored == pytest.approx(100 / 3), "one image of three has no label"
    assert type(actual).from_json(actual.to_json()) == actual
    assert network.training, "the mode is put back"
    merged = np.full(256, 255, np.uint8)
    merged[:3] = 0
    coarse = score(
        network, Given(), ScoringRule(label_space("one", ["all", "none"]), merged), Runtime(torch.device("cpu"), 0)
    )
    assert coarse.iou["all"] < 100, "labels of the other class are missed"


def test_camvid_names_stand_in_the_published_order() -> None:
    assert BUILT_IN["camvid11"].classes[0] == "sky"
    assert len(BUILT_IN["idd7"]) == 7


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Images with labels of given values."""

    def write(*labels: np.ndarray) -> dict[str, Path]:
        for number, label in enumerate(labels):
            for kind, array in (("images", np.full((*label.shape, 3), 90, np.uint8)), ("labels", label)):
                (tmp_path / kind).mkdir(exist_ok=True)
                Image.fromarray(array).save(tmp_path / kind / f"{number}.png")
        return {"images": tmp_path / "images", "labels": tmp_path / "labels"}

    return write


@pytest.fixture(scope="module")
def model() -> Predictor:
    spec = ModelSpec("test_efficientnet", 16, 2, HeadSpec(channels=16, dilations=(1, 2)))
    space = label_space("cracks", ["background", "crack"])
    return Predictor(build_segmenter(spec), ModelConfig(spec, space.name, space.classes, space.colors, None))


BINARY = np.zeros((20, 30), np.uint8)
BINARY[5:9] = 255


class TestLabelMap:
    def test_a_binary_mask_is_refused_with_the_map_to_give(self, model: Predictor, folders: Callable) -> None:
        where = folders(BINARY, BINARY)
        with pytest.raises(DataError, match="only background has pixels") as refused:
            domainbridge.evaluate(model, **where)
        assert "values 0 and 255: a binary mask? --label-map 0=background,255=crack" in str(refused.value)
        scored = domainbridge.evaluate(model, **where, label_map="0=background,255=crack")["images"]
        assert scored.ignored == 0
        assert scored.accuracy is not None
        by_mapping = domainbridge.evaluate(model, **where, label_map={0: "background", 255: "crack"})["images"]
        assert by_mapping == scored

    def test_labels_without_any_class(self, model: Predictor, folders: Callable) -> None:
        with pytest.raises(DataError, match=r"no class has pixels.*value 255; say which classes"):
            domainbridge.evaluate(model, **folders(np.full((8, 8), 255, np.uint8)))
        with pytest.raises(DataError, match=r"no class has pixels.*values 0 and 255"):
            domainbridge.evaluate(model, **folders(BINARY), label_map={7: "crack"})

    def test_unscored_pixels_are_counted_and_a_large_share_is_told(self, model: Predictor, folders: Callable) -> None:
        label = np.full((10, 10), 40, np.uint8)
        label[:2], label[2:4] = 10, 20
        told: list[str] = []
        mapping = {10: "background", 20: "crack"}
        scored = domainbridge.evaluate(model, **folders(label), label_map=mapping, report=told.append)["images"]
        assert scored.ignored == pytest.approx(60)
        assert any("warning: images: 60.0 % of the pixels have no class" in line for line in told)
        told.clear()
        domainbridge.evaluate(model, **folders(label), label_map={**mapping, 40: 1}, report=told.append)
        assert told == []

    def test_colors(self, model: Predictor, folders: Callable, tmp_path: Path) -> None:
        where = folders(BINARY)
        Image.fromarray(np.stack([BINARY, 0 * BINARY, 0 * BINARY], 2)).save(where["labels"] / "0.png")
        scored = domainbridge.evaluate(model, **where, label_map="#000000=background,#ff0000=crack")["images"]
        assert scored.ignored == 0

    def test_forms(self, tmp_path: Path) -> None:
        file = tmp_path / "map.yaml"
        for text in ("{0: background, 255: crack}", "label_map:\n  0: background\n  '255': crack\n"):
            file.write_text(text)
            assert read_label_map(file) == read_label_map("0=background, 255=crack") == {0: "background", 255: "crack"}
        assert read_label_map("0=1,'x'=ignore") == {0: 1, "'x'": "ignore"}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[1, 2]", "found list"),
            ("{0: no, 1: ~, 2.5: a}", r"3 problems(.|\n)*False(.|\n)*None(.|\n)*2.5"),
            ("{0: a, '0': b}", "key 0: given twice"),
            ("{", "no YAML"),
            ("", "found NoneType"),
        ],
    )
    def test_files_that_are_no_map(self, content: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "map.yaml").write_text(content)
        with pytest.raises(RecipeError, match=message):
            read_label_map(tmp_path / "map.yaml")

    def test_wrong_use(self, model: Predictor, folders: Callable) -> None:
        where = folders(BINARY)
        for options, message in (
            ({"label_map": "none.yaml"}, "none.yaml: cannot be read"),
            ({"label_map": "0=background,255"}, "expected VALUE=CLASS pairs"),
            ({"label_map": "0=sky"}, r"label_map: value 'sky'"),
            ({"label_map": "0=crack", "label_space": "camvid11"}, "takes the place of a label space"),
        ):
            with pytest.raises(RecipeError, match=message):
                domainbridge.evaluate(model, **where, **options)


def test_want_of_memory_while_scoring_names_the_keys_of_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("domainbridge.evaluation.evaluate.class_maps", short)
    space = label_space("three", ["bright", "dark", "green"])
    rule = ScoringRule(space, space_table(space, space))
    with pytest.raises(TrainingError, match=r"scoring 0 does not fit(.|\n)*evaluation.mode=slide"):
        score(Pixelwise(), Given(), rule, Runtime(CPU, 0))
