"""Scores without labels: each formula against a plain loop; a walk over images against the same, image by image."""

import math
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from domainbridge.data.dataset import evenly_spread
from domainbridge.data.label_spaces import label_space
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.grid import image_on, label_on_grid, middle
from domainbridge.evaluation.label_free import (
    Tally,
    average_thresholded_confidence,
    calibrated,
    confidence_bins,
    mean_agreement,
    normalized_entropy,
    pixel_agreement,
    total_variation,
)
from domainbridge.evaluation.label_free_images import Walk
from domainbridge.evaluation.shifts import SHIFTS
from domainbridge.models.segmenter import Segmentation
from domainbridge.runtime.device import Runtime
from domainbridge.runtime.distributed import Processes
from domainbridge.runtime.signals import StopRequested
from domainbridge.types import Sample

CLASSES = ("ground", "box", "sky")


def test_entropy_is_that_of_a_loop() -> None:
    logits = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    entropy = normalized_entropy(logits)
    for y in range(2):
        for x in range(3):
            values = [math.exp(float(value)) for value in logits[:, y, x]]
            shares = [value / sum(values) for value in values]
            expected = -sum(share * math.log(share) for share in shares) / math.log(4)
            assert float(entropy[y, x]) == pytest.approx(expected, abs=1e-6)
    assert float(normalized_entropy(torch.zeros(5, 1))) == pytest.approx(1)
    assert float(normalized_entropy(torch.tensor([[1000.0], [0.0]]))) == pytest.approx(0)


@pytest.mark.parametrize("accuracy", [35.0, 80.0, 100.0])
def test_atc_is_that_of_sorted_values(accuracy: float) -> None:
    """The threshold leaves as many source pixels above as are right; the share of target pixels above is predicted."""
    generator = torch.Generator().manual_seed(1)
    source = torch.rand(40_000, generator=generator) ** 0.2
    target = torch.rand(30_000, generator=generator) ** 0.4
    threshold = sorted(source.tolist())[min(round(len(source) * (1 - accuracy / 100)), len(source) - 1)]
    expected = 100 * sum(value >= threshold for value in target.tolist()) / len(target)
    predicted = average_thresholded_confidence(confidence_bins(source), accuracy, confidence_bins(target))
    assert predicted == pytest.approx(expected, abs=0.5)


def test_atc_of_the_source_itself_is_its_accuracy() -> None:
    bins = confidence_bins(torch.rand(5000, generator=torch.Generator().manual_seed(2)))
    for accuracy in (0.0, 12.5, 61.0, 100.0):
        assert average_thresholded_confidence(bins, accuracy, bins) == pytest.approx(accuracy, abs=1e-6)


def test_bins_keep_the_order_and_every_pixel() -> None:
    values = torch.tensor([0.0, 0.2, 0.9, 0.999, 0.99999, 1.0])
    positions = [int(confidence_bins(value).argmax()) for value in values]
    assert positions == sorted(set(positions))
    assert float(confidence_bins(values.repeat(7)).sum()) == 42


def test_agreements_are_those_of_loops() -> None:
    one, other = [0, 0, 1, 1, 1, 3, 3], [0, 1, 1, 1, 3, 3, 3]
    matrix = torch.zeros(4, 4)
    for a, b in zip(one, other, strict=True):
        matrix[a, b] += 1
    assert pixel_agreement(matrix) == pytest.approx(100 * 5 / 7)
    ious = []
    for kind in set(one) | set(other):
        both = sum(a == b == kind for a, b in zip(one, other, strict=True))
        ious.append(both / sum(kind in pair for pair in zip(one, other, strict=True)))
    assert mean_agreement(matrix) == pytest.approx(100 * sum(ious) / len(ious))


def test_total_variation_is_half_the_difference() -> None:
    assert total_variation(torch.tensor([6.0, 2.0, 2.0]), torch.tensor([20.0, 20.0, 0.0])) == pytest.approx(30)
    assert total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 5.0])) == pytest.approx(100)


def test_a_line_is_read_at_the_targets_score() -> None:
    on_a_line = calibrated([80.0, 70.0, 60.0, 50.0], [60.0, 50.0, 40.0, 30.0], 45.0)
    assert on_a_line is not None
    assert (on_a_line.value, on_a_line.error) == (pytest.approx(25), pytest.approx(0, abs=1e-9))
    below = calibrated([80.0, 70.0, 60.0], [60.0, 50.0, 40.0], 5.0)
    assert below is not None
    assert below.value == 0
    assert calibrated([80.0, 70.0], [60.0, 50.0], 60.0) is None
    assert calibrated([80.0, 80.0, 80.0], [60.0, 50.0, 70.0], 80.0) is None


def test_the_error_is_the_largest_of_points_left_out() -> None:
    scores, mious = [50.0, 60.0, 70.0, 90.0], [20.0, 35.0, 33.0, 60.0]
    expected = []
    for number in range(4):
        xs, ys = np.delete(scores, number), np.delete(mious, number)
        slope, offset = np.polyfit(xs, ys, 1)
        expected.append(abs(slope * scores[number] + offset - mious[number]))
    line = calibrated(scores, mious, 65.0)
    assert line is not None
    assert line.error == pytest.approx(max(expected))
    slope, offset = np.polyfit(scores, mious, 1)
    assert line.value == pytest.approx(slope * 65 + offset)


def test_shifts_are_deterministic_images() -> None:
    image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    for name, shift in SHIFTS.items():
        one, other = (shift(image, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(one, other), name
        assert one.shape == image.shape
        assert 0 <= float(one.min()) <= float(one.max()) <= 1
        assert torch.equal(one, image) == (name == "none")


def test_large_images_are_compared_in_their_middle() -> None:
    large = np.zeros((2100, 5000, 3), np.uint8)
    large[26 : 26 + 2048, 1476 : 1476 + 2048] = 255
    assert middle(large).shape == (2048, 2048, 3)
    assert middle(large).min() == 255
    assert image_on(torch.device("cpu"), large).shape == (1, 3, 2048, 2048)
    assert label_on_grid(torch.device("cpu"), large[..., 0]).shape == (512, 512)
    small = np.zeros((30, 50, 3), np.uint8)
    assert middle(small) is small


@pytest.mark.parametrize(("length", "count", "expected"), [(10, 4, [0, 2, 5, 7]), (3, 32, [0, 1, 2]), (0, 5, [])])
def test_positions_are_evenly_spread(length: int, count: int, expected: list[int]) -> None:
    assert evenly_spread(length, count) == expected


class Colors(nn.Module):
    """A segmenter whose logits are a linear map of the pixels, every fourth pixel a cell; the first leans right."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.head = nn.Module()
        self.head.classifier = nn.Conv2d(3, len(CLASSES), 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.head.classifier.weight.copy_(4 * torch.randn(len(CLASSES), 3, 1, 1, generator=generator))
            self.head.classifier.bias.copy_(-self.head.classifier.weight.sum((1, 2, 3)) / 2)  # every class occurs

    def forward(self, image: Tensor) -> Segmentation:
        features = nn.functional.avg_pool2d(image, 4)
        logits = self.head.classifier(features)
        logits[:, 0] += torch.linspace(0, 2, logits.shape[3])
        return Segmentation(logits, features)


class Pictures:
    def __init__(self, count: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.images = generator.integers(0, 256, (count, 4, 6, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        self.labels = generator.integers(0, 3, (count, 4, 6), np.uint8).repeat(4, 1).repeat(4, 2)
        self.labels[:, :4, :4] = 255

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], self.labels[index], f"picture {index}")

    def load_label(self, index: int) -> np.ndarray:
        return self.labels[index]


@dataclass(frozen=True)
class OneOf(Processes):
    """One of several processes that keeps its own sums."""

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        return value


def walk_of(reference: int | None = 2, processes: Processes | None = None) -> Walk:
    space = label_space("scene", CLASSES)
    table = np.full(256, 255, np.uint8)
    table[:3] = range(3)
    runtime = Runtime(torch.device("cpu"), 0, processes or Processes())
    other = None if reference is None else Colors(reference)
    return Walk(Colors(1), other, 3, ScoringRule(space, table), runtime, seed=7)  # type: ignore[arg-type]


def test_a_walk_counts_what_a_loop_counts() -> None:
    walk, pictures = walk_of(), Pictures(5, 0)
    source = walk.over_source(pictures, 5)
    tally = walk.over_target(pictures, 5, source)
    model, other = walk.model, walk.reference
    assert other is not None
    classes, flips, agreements, nearest = [], [], [], []
    for index in range(5):
        image = image_on(torch.device("cpu"), pictures.images[index])
        features, predicted = model(image).features[0], model(image).logits[0].argmax(0)
        mirrored = model(image.flip(3)).logits[0].argmax(0).flip(1)
        against = other(image).logits[0].argmax(0)
        for y in range(4):
            for x in range(6):
                classes.append(int(predicted[y, x]))
                flips.append(int(predicted[y, x]) == int(mirrored[y, x]))
                agreements.append(int(predicted[y, x]) == int(against[y, x]))
                distances = [float((features[:, y, x] - vector).norm()) for vector in source.prototypes]
                nearest.append(distances.index(min(distances)) == int(predicted[y, x]))
    scores = tally.scores(source.classes)
    assert [float(count) for count in tally.classes] == [classes.count(kind) for kind in range(3)]
    assert scores["flip_consistency"] == pytest.approx(100 * sum(flips) / len(flips))
    assert scores["pixel_agreement"] == pytest.approx(100 * sum(agreements) / len(agreements))
    assert scores["prototype_agreement"] == pytest.approx(100 * sum(nearest) / len(nearest))
    assert all(0 < scores[name] < 100 for name in ("flip_consistency", "jitter_consistency", "pixel_agreement"))


def test_source_facts_are_those_of_a_loop() -> None:
    walk, pictures = walk_of(), Pictures(4, 3)
    source = walk.over_source(pictures, 4)
    right, labeled = 0, 0
    vectors: dict[int, list[Tensor]] = {kind: [] for kind in range(3)}
    for index in range(4):
        output = walk.model(image_on(torch.device("cpu"), pictures.images[index]))
        predicted, label = output.logits[0].argmax(0), pictures.labels[index][::4, ::4]
        for y in range(4):
            for x in range(6):
                if label[y, x] != 255:
                    vectors[int(label[y, x])].append(output.features[0, :, y, x])
                    labeled, right = labeled + 1, right + (int(predicted[y, x]) == label[y, x])
    assert source.accuracy == pytest.approx(100 * right / labeled)
    assert source.classes.tolist() == [len(vectors[kind]) for kind in range(3)]
    for kind in range(3):
        assert torch.allclose(source.prototypes[kind], torch.stack(vectors[kind]).mean(0), atol=1e-6)
    assert set(source.shifts) == set(SHIFTS)
    assert source.shifts["none"]["atc"] == pytest.approx(source.accuracy, abs=1e-6)
    assert all(0 <= value <= 100 for facts in source.shifts.values() for value in facts.values())


def test_processes_share_the_images() -> None:
    pictures = Pictures(5, 0)
    whole = walk_of().over_source(pictures, 5)
    parts = [walk_of(processes=OneOf(rank=rank, count=2)) for rank in range(2)]
    assert sum(part.over_source(pictures, 5).classes for part in parts).tolist() == whole.classes.tolist()  # type: ignore[union-attr]
    expected = walk_of().over_target(pictures, 5, whole)
    tallies = [part.over_target(pictures, 5, whole) for part in parts]
    for field in fields(Tally):
        total = sum(getattr(tally, field.name) for tally in tallies)
        assert torch.allclose(total, getattr(expected, field.name)), field.name


def test_predictions_lie_in_their_interval() -> None:
    walk, pictures = walk_of(), Pictures(6, 1)
    source = walk.over_source(pictures, 6)
    predicted = source.predictions(walk.over_target(pictures, 6, source))
    assert (
        0 <= predicted["predicted_miou_low"] <= predicted["predicted_miou"] <= predicted["predicted_miou_high"] <= 100
    )
    lone = walk_of(None)
    alone = lone.over_source(pictures, 6)
    tally = lone.over_target(pictures, 6, alone)
    assert "agreement" not in tally.scores(alone.classes)
    assert "predicted_miou" in alone.predictions(tally)


def test_without_labeled_pixels_the_rest_is_scored() -> None:
    pictures = Pictures(3, 1)
    pictures.labels[:] = 255
    walk = walk_of()
    source = walk.over_source(pictures, 3)
    tally = walk.over_target(pictures, 3, source)
    assert source.predictions(tally) == {}
    assert set(tally.scores(source.classes)) == {
        *("agreement", "pixel_agreement", "confidence", "entropy", "flip_consistency", "jitter_consistency")
    }


def test_a_stop_leaves_between_two_images() -> None:
    seen = []

    def progress() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise StopRequested

    with pytest.raises(StopRequested):
        replace(walk_of(), progress=progress).over_source(Pictures(5, 0), 5)
    assert len(seen) == 2
