"""Keys for stable training: class weights, label smoothing, scale jitter of crops."""

import copy

import numpy as np
import pytest
import torch

from domainbridge.build.label_space import pixel_loss
from domainbridge.build.networks import build_objective, model_spec
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.data.batches import CropRule, PairedCrops
from domainbridge.errors import RecipeError
from domainbridge.methods.base import PixelObjective, StageInputs, TrainingStage
from domainbridge.methods.prototypes import PrototypeBank, empty_bank
from domainbridge.models.segmenter import Segmenter, build_segmenter
from domainbridge.ops.losses import PixelLoss, cross_entropy
from domainbridge.types import IGNORE, Sample
from tiny_domain import RECIPE

CPU = torch.device("cpu")


def test_class_weights_and_smoothing_follow_their_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, generator=generator)
    label = torch.randint(3, (1, 4, 4), generator=generator)
    label[0, 0, 0] = IGNORE
    pixel = torch.rand(1, 4, 4, generator=generator)
    weights, smoothing = torch.tensor([1.0, 2.0, 0.5]), 0.2
    logs = logits.log_softmax(1)
    expected = torch.zeros(1, 4, 4)
    for y in range(4):
        for x in range(4):
            if (k := int(label[0, y, x])) != IGNORE:
                spread = sum(-float(weights[c] * logs[0, c, y, x]) for c in range(3)) / 3
                expected[0, y, x] = (1 - smoothing) * -float(weights[k] * logs[0, k, y, x]) + smoothing * spread
    loss = PixelLoss(weights, smoothing)
    torch.testing.assert_close(loss(logits, label), expected.sum() / 16)
    torch.testing.assert_close(loss(logits, label, pixel), (expected * pixel).mean())
    assert torch.equal(PixelLoss()(logits, label, pixel), cross_entropy(logits, label, pixel))


class NoInputs(StageInputs):
    """Stages whose inputs are one network without prototypes."""

    def __init__(self, network: Segmenter) -> None:
        self.network = network

    def model(self, stage: str) -> Segmenter:
        return self.network

    def prototypes(self, stage: str, student: str) -> PrototypeBank:
        return empty_bank(3, 16, CPU)


def test_every_objective_of_a_recipe_takes_the_loss() -> None:
    changes = ["training.class_weights={box: 3}", "training.label_smoothing=0.1", "source_only=true"]
    for method in ("ddb", "self-training", "masked-consistency"):
        tree = {key: value for key, value in copy.deepcopy(RECIPE).items() if method == "ddb" or key != "prototypes"}
        recipe = parse_recipe(tree | {"method": method}, changes)
        network = build_segmenter(model_spec(recipe))
        for stage in stages_of(recipe):
            if isinstance(stage, TrainingStage):
                objective = build_objective(recipe, stage, copy.deepcopy(network), NoInputs(network))
                assert isinstance(objective, PixelObjective)
                assert objective.pixel_loss.class_weights is not None
                assert objective.pixel_loss.class_weights.tolist() == [1, 3, 1]
                assert objective.pixel_loss.label_smoothing == 0.1


def test_unknown_classes_are_named() -> None:
    recipe = parse_recipe(copy.deepcopy(RECIPE), ["training.class_weights={boks: 3}"])
    with pytest.raises(RecipeError, match="class_weights: no class is called boks; classes are ground, box, sky"):
        pixel_loss(recipe, recipe.training, CPU)
    plain = parse_recipe(copy.deepcopy(RECIPE))
    assert pixel_loss(plain, plain.training, CPU) is None


class Ramp:
    """Images whose red and green are the coordinates of the pixel, and labels that are a quarter of the row."""

    def __init__(self, height: int, width: int) -> None:
        rows, columns = np.mgrid[:height, :width].astype(np.uint8)
        image = np.stack([rows, columns, np.full_like(rows, 7)], -1)
        self.sample = Sample(image, rows // 4, "ramp")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample


def crops(scale: tuple[float, float], target_scale: tuple[float, float], size: int = 120) -> PairedCrops:
    rule = CropRule((32, 32), 1.0, 10, 0.0, (0, 0, 0), scale, target_scale)
    ramp = Ramp(size, size)
    return PairedCrops(ramp, ramp, rule, batch_size=2, seed=1, stage="s")  # type: ignore[arg-type]


def test_scale_jitter_enlarges_the_crop_with_its_label() -> None:
    plain = crops((1.0, 1.0), (1.0, 1.0))[0]
    double = crops((2.0, 2.0), (1.0, 1.0))[0]
    assert double.source_image.shape == plain.source_image.shape
    red = double.source_image[0, 0].float()
    assert float(red[-1, 0] - red[0, 0]) == pytest.approx(15, abs=1), "16 rows of the image in 32 of the crop"
    assert (red // 4 - double.source_label[0]).abs().max() <= 1
    assert torch.equal(double.target_image, plain.target_image), "the other draws stay"
    half = crops((1.0, 1.0), (0.5, 0.5))[0]
    green = half.target_image[0, 1].float()
    assert float(green[0, -1] - green[0, 0]) == pytest.approx(62, abs=2)
    assert torch.equal(half.source_image, plain.source_image)


def test_scale_jitter_is_a_function_of_step_and_row_within_its_bounds() -> None:
    stream, factors = crops((0.5, 2.0), (1.0, 1.0)), []
    for step in range(12):
        batch = stream[step]
        assert torch.equal(batch.source_image, crops((0.5, 2.0), (1.0, 1.0))[step].source_image)
        factors += [31 / float(image[0, -1, 0].float() - image[0, 0, 0].float()) for image in batch.source_image]
    assert 0.45 < min(factors) < 0.8
    assert 1.4 < max(factors) < 2.2


def test_images_smaller_than_the_window_are_padded_after_the_change_of_scale() -> None:
    batch = crops((0.5, 0.5), (0.5, 0.5), size=40)[0]
    assert (batch.source_label[0] != IGNORE).sum() == 20 * 20
    assert (batch.target_image[0, 2] == 7).sum() == 20 * 20


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"crop.scale: .*first bound must not be above the second"):
        parse_recipe(copy.deepcopy(RECIPE), ["crop.scale=[2, 1]"])
