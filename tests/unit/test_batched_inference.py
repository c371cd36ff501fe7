"""Several images through the network at once, as on a GPU; decoding and writing beside the network."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbridge
from domainbridge.data.label_spaces import label_space, space_table
from domainbridge.errors import DataError, ModelError, RecipeError, StorageError
from domainbridge.evaluation.evaluate import ScoredImage, ScoringRule, compared, score
from domainbridge.evaluation.inference import class_maps, images_at_once
from domainbridge.evaluation.inference_rule import InferenceRule, same_size_batches
from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.run.image_recorder import ImageRecorder
from domainbridge.runtime.device import Runtime
from domainbridge.tools.predict_outputs import Outputs
from domainbridge.types import Sample
from fake_cuda import CUDA, Seen, Watch, on_fake_cuda
from one_image import class_map

CPU = torch.device("cpu")
SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
SPACE = label_space("abc", ["a", "b", "c"])
CONFIG = ModelConfig(SPEC, SPACE.name, SPACE.classes, SPACE.colors, None)
RULE = ScoringRule(SPACE, space_table(SPACE, SPACE))
SIZES = [(40, 48), (40, 48), (40, 48), (33, 48), (40, 48)]


def network() -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(SPEC).eval()


class Noise:
    """Labeled images of several sizes."""

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Sample:
        generator = np.random.default_rng(index)
        image = generator.integers(0, 256, (*SIZES[index], 3), np.uint8)
        return Sample(image, generator.integers(0, 3, SIZES[index], np.uint8), str(index))

    def load_label(self, index: int) -> np.ndarray:
        label = self[index].label
        assert label is not None
        return label


@pytest.fixture
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU would take them."""
    for module in ("evaluate", "predictor"):
        monkeypatch.setattr(f"domainbridge.evaluation.{module}.images_at_once", lambda *_, **__: 2)


def test_neighbors_of_one_size_in_order() -> None:
    batches = same_size_batches(range(len(SIZES)), SIZES.__getitem__, lambda height, width: 2)
    assert list(batches) == [[0, 1], [2], [3], [4]]


def test_as_many_as_the_largest_image_in_one_piece_has_pixels() -> None:
    assert images_at_once(512, 1024, InferenceRule(), CUDA) == 8
    assert images_at_once(2048, 2048, InferenceRule(), CUDA) == 1
    assert images_at_once(4000, 4000, InferenceRule(), CUDA) == 1
    assert images_at_once(512, 1024, InferenceRule((256, 256)), CUDA) == 1, "its windows make a batch already"
    assert images_at_once(512, 1024, InferenceRule(), CPU) == 1


@pytest.mark.parametrize("rule", [InferenceRule(), InferenceRule(flip=True), InferenceRule((32, 32), flip=True)])
def test_together_as_one_by_one(rule: InferenceRule) -> None:
    model, samples = network(), [Noise()[index] for index in range(3)]
    sizes = [(40, 48), (80, 96), (17, 11)]
    images = [sample.image for sample in samples]
    together = class_maps(model, images, sizes, rule, CPU, confidence=True)
    for image, size, result in zip(images, sizes, together, strict=True):
        alone = class_map(model, image, size, rule, CPU, confidence=True)
        assert result.classes.shape == size
        assert (result.classes != alone.classes).float().mean() < 0.001, "but for rounding in a batch"
        assert result.confidence is not None
        assert alone.confidence is not None
        assert (result.confidence.int() - alone.confidence.int()).abs().max() <= 1


def test_scores_of_batches(two_at_once: None) -> None:
    """Each image with its own label, whatever the batches are."""
    seen: list[int] = []

    inner = network()

    class Watched(torch.nn.Module):
        grid = inner.grid

        def forward(self, image: torch.Tensor) -> object:
            seen.append(len(image))
            return inner(image)

    batched = score(Watched(), Noise(), RULE, Runtime(CPU, 0))
    assert seen == [2, 1, 1, 1]
    matrix = torch.zeros(3, 4, dtype=torch.long)
    for index in range(len(SIZES)):
        sample = Noise()[index]
        guess = class_map(inner, sample.image, SIZES[index], InferenceRule(), CPU).classes
        for label, prediction in zip(sample.label.flatten(), guess.flatten(), strict=True):
            matrix[int(label), int(prediction)] += 1
    union = matrix.sum(1) + matrix.sum(0)[:3] - matrix.diagonal()
    expected = 100 * matrix.diagonal() / union
    assert list(batched.iou.values()) == pytest.approx(expected.tolist(), abs=0.1)


def test_damaged_weights_are_told_at_the_end_of_the_set(two_at_once: None) -> None:
    broken = network()
    torch.nn.init.constant_(broken.head.classifier.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite numbers"):
        score(broken, Noise(), RULE, Runtime(CPU, 0))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scoring_on_a_gpu_waits_for_nothing(precision: str) -> None:
    """Two images and labels up, counts stay there; ``int(pixels)`` at the end is the one look."""

    def compare() -> Seen:
        with CUDA:
            model = build_segmenter(SPEC).eval()
        rule = ScoringRule(SPACE, RULE.table, inference=InferenceRule(precision=precision))
        samples, watch = [Noise()[0], Noise()[1]], Watch()
        with watch:
            for part in compared(model, samples, rule, CUDA):
                assert {part.counts.device.type, part.predicted.device.type, part.finite.device.type} == {"cuda"}
        return watch.seen

    seen = on_fake_cuda(compare)
    assert seen.faults == set()
    assert all(asynchronous for _, asynchronous, _ in seen.copies), seen.copies
    assert sum(seen.copies.values()) <= 6, "a table, the images, two labels; nothing comes back"


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_records_of_images_on_a_gpu_are_read_later() -> None:
    def record() -> Seen:
        recorder, watch = ImageRecorder(RULE, {"noise": Noise()}), Watch()
        with watch:
            counts = torch.zeros(4, 4, dtype=torch.int64, device=CUDA)
            predicted = torch.zeros(8, 8, dtype=torch.uint8, device=CUDA)
            for index in range(2):
                recorder.add("noise", ScoredImage(index, Noise()[index], predicted, counts))
        return watch.seen

    seen = on_fake_cuda(record)
    assert sum(seen.copies.values()) == 4, "counts and class map of two images"
    assert all(asynchronous for _, asynchronous, _ in seen.copies), seen.copies


def test_precision_is_that_of_the_forward_pass(tmp_path: Path) -> None:
    save_model(tmp_path / "model", network(), CONFIG)
    types: list[torch.dtype] = []
    predictor = load_predictor(tmp_path / "model", precision="bfloat16", device="cpu")
    predictor.network.head.classifier.register_forward_hook(lambda *given: types.append(given[2].dtype))
    assert predictor.predict(Noise()[0].image).shape == (40, 48)
    assert types == [torch.bfloat16]
    with pytest.raises(RecipeError, match="precision: 'half' is none of float32"):
        load_predictor(tmp_path / "model", precision="half")


class TestPredict:
    @pytest.fixture
    def images(self, tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        for index in range(len(SIZES)):
            Image.fromarray(Noise()[index].image).save(folder / f"{index}.png")
        return folder

    def test_each_file_gets_its_own_result(self, images: Path, two_at_once: None) -> None:
        predictor = Predictor(network(), CONFIG)
        assert domainbridge.predict(predictor, images, images.parent / "out", overlay=True) == len(SIZES)
        for index, size in enumerate(SIZES):
            with Image.open(images.parent / f"out/{index}.png") as result:
                expected = class_map(predictor.network, Noise()[index].image, size, InferenceRule(), CPU).classes
                assert (np.asarray(result) != expected.numpy()).mean() < 0.001

    def test_together_too_large_is_tried_one_by_one(self, images: Path, two_at_once: None) -> None:
        predictor = Predictor(network(), CONFIG)
        forward = predictor.network.forward

        def short(image: torch.Tensor) -> object:
            if len(image) > 1:
                activations = torch.zeros(1)
                failed.append(weakref.ref(activations))
                raise torch.OutOfMemoryError("CUDA out of memory")
            assert all(activations() is None for activations in failed), "still in the device's memory"
            return forward(image)

        failed: list[weakref.ref[torch.Tensor]] = []
        predictor.network.forward = short  # type: ignore[assignment]
        assert domainbridge.predict(predictor, images, images.parent / "out") == len(SIZES)
        assert failed

    def test_a_full_disk_ends_the_command(self, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise StorageError("out: no space left")

        monkeypatch.setattr(Outputs, "write", full)
        with pytest.raises(StorageError, match="no space left"):
            domainbridge.predict(Predictor(network(), CONFIG), images, images.parent / "out")

    def test_problems_are_listed_in_the_order_of_the_files(self, images: Path) -> None:
        for name in ("2.png", "0.png", "4.png"):
            (images / name).write_bytes(b"text")
        with pytest.raises(DataError, match=r"2 images were segmented, 3 not(.|\n)*0\.png(.|\n)*2\.png(.|\n)*4\.png"):
            domainbridge.predict(Predictor(network(), CONFIG), images, images.parent / "out")
