"""The objectives with tensors and small networks; fast paths against their readable formulas."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from domainbridge.methods.distillation import (
    Distillation,
    Teacher,
    TeacherOutput,
    prototype_weights,
    rectified_ensemble,
)
from domainbridge.methods.mean_teacher import MeanTeacher
from domainbridge.methods.prototypes import PrototypeBank, empty_bank, image_means, running_mean
from domainbridge.methods.self_training import SelfTraining, confident_pseudo_label
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.segmenter import Segmentation
from domainbridge.ops.losses import cross_entropy, soft_divergence
from domainbridge.ops.photometric import AugmentationConfig, augment
from domainbridge.ops.prototype_distance import PrototypeDistances, class_sums
from domainbridge.ops.upsample import LazyUpsample, interpolation_matrix, interpolation_rows, upsample
from domainbridge.types import Batch

CLASSES, CHANNELS = 4, 6


class TwoLayers(nn.Module):
    """A segmenter in two layers, with the parts that objectives touch."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1), nn.BatchNorm2d(CHANNELS))
        self.dropout = nn.Dropout2d(0.5)
        self.classifier = nn.Conv2d(CHANNELS, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> Segmentation:
        features = self.dropout(self.features(image))
        return Segmentation(self.classifier(features), features)


class GivenOutput(nn.Module):
    """A network that always gives the same output."""

    def __init__(self, output: Segmentation) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: torch.Tensor) -> Segmentation:
        return self.output


def network(seed: int) -> TwoLayers:
    torch.manual_seed(seed)
    return TwoLayers().train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, CLASSES, (2, 16, 20), generator=generator)
    label[:, :2] = 255
    images = torch.rand(2, 2, 3, 16, 20, generator=generator)
    return Batch(images[0], label, images[1])


sizes = st.tuples(st.integers(1, 6), st.integers(1, 7))


class TestPrototypeDistance:
    @given(st.integers(1, 12), st.integers(1, 60))
    def test_matrix_is_the_upsampling(self, cells: int, pixels: int) -> None:
        values = torch.randn(1, 1, 1, cells)
        matrix = interpolation_matrix(cells, pixels, torch.device("cpu"))
        assert torch.allclose(upsample(values, (1, pixels))[0, 0, 0], matrix @ values[0, 0, 0], atol=1e-6)
        assert torch.allclose(matrix.sum(1), torch.ones(pixels), atol=1e-6)

    @given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 299), st.integers(1, 64))
    @example(193, 187, 93, 31)  # a pixel exactly at the center of a cell
    def test_some_rows_are_those_of_the_whole_matrix(self, cells: int, pixels: int, start: int, count: int) -> None:
        rows = slice(min(start, pixels - 1), min(start + count, pixels))
        some, needed = interpolation_rows((pixels, cells), rows, torch.device("cpu"))
        whole = interpolation_matrix(cells, pixels, torch.device("cpu"))[rows]
        assert torch.allclose(some, whole[:, needed], atol=1e-4)
        assert torch.allclose(some.sum(1), torch.ones(len(some)))

    @given(sizes, st.integers(1, 8), st.integers(1, 5), st.integers(0, 9))
    @settings(max_examples=40)
    def test_two_upsamplings_read_in_chunks(self, cells: tuple[int, int], once: int, again: int, first: int) -> None:
        maps = torch.randn(2, 3, *cells)
        middle, size = (cells[0] * once + 1, cells[1] * once), (cells[0] * once * again, cells[1] * again)
        expected = upsample(upsample(maps, middle), size)
        upsampled = LazyUpsample(maps, middle, size)
        first = min(first, size[0] - 1)
        for rows in (slice(0, size[0]), slice(first, size[0]), slice(first, first + 1)):
            assert torch.allclose(upsampled.rows(rows), expected[:, :, rows], atol=1e-5)

    @given(sizes, st.integers(1, 8), st.integers(0, 999))
    @settings(max_examples=40)
    def test_distances_equal_those_of_upsampled_features(self, cells: tuple[int, int], scale: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(2, CHANNELS, *cells, generator=generator) + 5
        prototypes = torch.randn(CLASSES, CHANNELS, generator=generator) + 5
        size = (cells[0] * scale + 1, cells[1] * scale)
        plain = (upsample(features, size)[:, None] - prototypes[None, :, :, None, None]).double().norm(dim=2)
        distances = PrototypeDistances(features, prototypes, size)
        rows = slice(size[0] // 3, size[0] // 3 + (size[0] + 1) // 2)
        assert torch.allclose(distances.rows(rows).double(), plain[:, :, rows], atol=2e-3)
        assert torch.allclose(LazyUpsample(features, size).rows(rows), upsample(features, size)[:, :, rows], atol=1e-5)

    @given(sizes, st.integers(1, 8), st.integers(0, 999))
    @settings(max_examples=40)
    def test_class_sums_equal_those_of_upsampled_features(self, cells: tuple[int, int], scale: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(2, CHANNELS, *cells, generator=generator)
        size = (cells[0] * scale, cells[1] * scale + 1)
        prediction = torch.randint(0, CLASSES, (2, *size), generator=generator)
        sums, pixels = class_sums(features, prediction, CLASSES)
        large = upsample(features, size)
        for k in range(CLASSES):
            mask = (prediction == k)[:, None]
            assert torch.allclose(sums[:, k], (large * mask).sum((2, 3)), atol=1e-4)
            assert torch.equal(pixels[:, k], mask.sum((1, 2, 3)).float())


class TestPrototypes:
    @given(st.integers(1, 6), st.integers(0, 5), st.integers(1, 4), st.integers(0, 999))
    def test_a_batch_at_once_is_one_image_after_the_other(self, images: int, count: int, cap: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(images, CLASSES, CHANNELS, generator=generator)
        seen = torch.rand(images, CLASSES, generator=generator) < 0.6
        start = PrototypeBank(
            torch.randn(CLASSES, CHANNELS, generator=generator), torch.full((CLASSES,), float(min(count, cap)))
        )
        ours = running_mean(start, means, seen, cap)
        vectors, counts = start.vectors.clone(), start.counts.clone()
        for image in range(images):
            for k in range(CLASSES):
                if seen[image, k]:
                    vectors[k] = (vectors[k] * counts[k] + means[image, k]) / (counts[k] + 1)
                    counts[k] = min(counts[k] + 1, cap)
        assert torch.allclose(ours.vectors, vectors, atol=1e-5)
        assert torch.equal(ours.counts, counts)

    def test_few_pixels_do_not_count(self) -> None:
        model = network(0).eval()
        image = torch.rand(1, 3, 16, 16)
        empty = empty_bank(CLASSES, CHANNELS, image.device)
        bank = running_mean(empty, *image_means(model, image, CLASSES, 10**6), 9)
        assert not bank.present.any()
        assert running_mean(bank, *image_means(model, image, CLASSES, 1), 9).present.any()


class TestLosses:
    def test_ignored_pixels_count_in_the_denominator(self) -> None:
        logits = torch.zeros(1, 2, 2, 2)
        label = torch.tensor([[[0, 1], [255, 255]]])
        expected = 2 * torch.tensor(2.0).log() / 4
        assert torch.allclose(cross_entropy(logits, label), expected)
        assert torch.allclose(cross_entropy(logits, label, torch.ones(())), expected)

    def test_divergence_of_equals_is_zero(self) -> None:
        logits = torch.randn(1, 3, 4, 4)
        assert soft_divergence(logits, logits, 2.0).abs() < 1e-6
        assert soft_divergence(logits, -logits, 1.0) > 0


class TestMeanTeacher:
    def test_copies_at_step_0_then_averages(self) -> None:
        student = network(1)
        teacher = MeanTeacher(student, 0.99)
        with torch.no_grad():
            student.classifier.bias.fill_(1.0)
        teacher.update(0)
        assert torch.equal(teacher.model.classifier.bias, student.classifier.bias)
        with torch.no_grad():
            student.classifier.bias.fill_(0.0)
        teacher.update(1)
        assert torch.allclose(teacher.model.classifier.bias, torch.tensor(0.5))
        with torch.no_grad():
            student.classifier.bias.fill_(10.0)
        teacher.update(10**6)
        assert torch.allclose(teacher.model.classifier.bias, torch.tensor(0.5 * 0.99 + 10 * 0.01))

    def test_dropout_is_off_and_batch_statistics_are_on(self) -> None:
        teacher = MeanTeacher(network(1), 0.99)
        image = torch.rand(2, 3, 16, 16)
        assert torch.equal(teacher.logits(image), teacher.logits(image))
        assert teacher.model.features[1].training
        assert not any(p.requires_grad for p in teacher.model.parameters())

    def test_student_statistics_are_copied_and_used(self) -> None:
        student = network(1)
        teacher = MeanTeacher(student, 0.99, "student")
        student(torch.rand(4, 3, 16, 16))
        teacher.update(0)
        assert torch.equal(teacher.model.features[1].running_mean, student.features[1].running_mean)
        student.eval()
        image = torch.rand(2, 3, 16, 16)
        assert torch.allclose(teacher.logits(image), upsample(student(image).logits, (16, 16)))
        before = teacher.model.features[1].running_mean.clone()
        teacher.logits(image)
        assert torch.equal(teacher.model.features[1].running_mean, before)


class TestSelfTraining:
    def test_share_of_confident_pixels(self) -> None:
        logits = torch.zeros(1, 2, 2, 2)
        logits[0, 1, 0] = 20
        pseudo = confident_pseudo_label(logits, 0.9)
        assert pseudo.label[0, 0].tolist() == [1, 1]
        assert (pseudo.weight == 0.5).all()
        rows = confident_pseudo_label(logits, 0.9, ignore_top=1)
        assert rows.weight[0].tolist() == [[0, 0], [0.5, 0.5]]

    @pytest.mark.parametrize("path", ["cut", "class"])
    def test_losses_depend_on_the_generator_only(self, path: str) -> None:
        def losses(seed: int) -> list[float]:
            objective = SelfTraining(network(2), path, augmentation=AugmentationConfig())
            objective.student.dropout.eval()
            objective.before_step(0)
            return [v.item() for v in dict(objective.losses(batch(), torch.Generator().manual_seed(seed))).values()]

        assert losses(1) == losses(1)
        assert losses(1)[1] != losses(2)[1]

    def test_gradients_reach_the_student_alone(self) -> None:
        objective = SelfTraining(network(2), "class")
        objective.before_step(0)
        sum(loss for _, loss in objective.losses(batch(), torch.Generator())).backward()
        assert all(p.grad is not None for p in objective.student.parameters())
        assert all(p.grad is None for p in objective.teacher.model.parameters())

    def test_state_brings_the_teacher_back(self) -> None:
        objective = SelfTraining(network(2), "cut")
        dict(objective.losses(batch(), torch.Generator()))
        other = SelfTraining(network(3), "cut")
        other.load_state_dict(objective.state_dict())
        for name, value in other.teacher.model.state_dict().items():
            assert torch.equal(value, objective.teacher.model.state_dict()[name])


class TestDistillation:
    def bank(self, present: int = CLASSES) -> PrototypeBank:
        vectors = torch.randn(CLASSES, CHANNELS, generator=torch.Generator().manual_seed(4))
        counts = torch.zeros(CLASSES)
        counts[:present] = 1
        vectors[present:] = 0
        return PrototypeBank(vectors, counts)

    def test_absent_classes(self) -> None:
        output = Segmentation(torch.randn(1, CLASSES, 3, 3), torch.randn(1, CHANNELS, 3, 3))

        def weights(bank: PrototypeBank, *, use_missing_prototypes: bool) -> torch.Tensor:
            weights = TeacherOutput(output, bank, (6, 6), use_missing_prototypes=use_missing_prototypes).weights(
                slice(0, 6)
            )
            assert weights is not None
            return weights

        fixed = weights(self.bank(2), use_missing_prototypes=False)
        assert (fixed[:, 2:] == 0).all()
        assert torch.allclose(fixed.sum(1), torch.ones(1, 6, 6))
        published = weights(self.bank(2), use_missing_prototypes=True)
        assert (published[:, 2:] > 0).all()
        nothing = weights(self.bank(0), use_missing_prototypes=False)
        assert torch.isfinite(nothing).all()

    def test_the_teacher_near_its_prototype_wins(self) -> None:
        one, other = network(5).eval(), network(6).eval()
        image = batch().target_image
        plain = Distillation(network(7), (Teacher(one), Teacher(other)))
        mean = (
            upsample(one(image).logits, (16, 20)).softmax(1) + upsample(other(image).logits, (16, 20)).softmax(1)
        ) / 2
        assert torch.allclose(plain.ensemble_probabilities(image), mean, atol=1e-6)
        teachers = (Teacher(one, self.bank()), Teacher(other, self.bank()))
        weighted = Distillation(network(7), teachers).ensemble_probabilities(image)
        assert (weighted.sum(1) < 1).all(), "not renormalized"

    @given(st.tuples(st.integers(1, 6), st.integers(1, 7)), st.integers(1, 8), st.integers(0, 999), st.booleans())
    @settings(max_examples=30)
    def test_chunks_of_rows_equal_the_readable_formulas(
        self, cells: tuple[int, int], scale: int, seed: int, published: bool
    ) -> None:
        """w = softmax(-d) and r = mean(w * softmax(logits)), on features and logits upsampled as a whole."""
        generator = torch.Generator().manual_seed(seed)
        size = (cells[0] * scale + 1, cells[1] * scale)

        def maps(channels: int) -> torch.Tensor:
            return torch.randn(2, channels, *cells, generator=generator)

        outputs = [Segmentation(maps(CLASSES), maps(CHANNELS)) for _ in range(2)]
        banks = [self.bank(), self.bank(2)]
        weights = [
            prototype_weights(upsample(output.features, size), bank, use_missing_prototypes=published)
            for output, bank in zip(outputs, banks, strict=True)
        ]
        expected = rectified_ensemble([upsample(output.logits, size) for output in outputs], weights)
        teachers = tuple(Teacher(GivenOutput(output), bank) for output, bank in zip(outputs, banks, strict=True))
        objective = Distillation(network(7), teachers, use_missing_prototypes=published)
        image = torch.zeros(2, 3, *size)
        assert torch.allclose(objective.ensemble_probabilities(image), expected, atol=1e-3)
        assert (objective.pseudo_label(image).label == expected.argmax(1)).float().mean() > 0.99

    @pytest.mark.parametrize("mode", ["hard", "soft"])
    @pytest.mark.parametrize("rectify", ["probabilities", "logits"])
    @pytest.mark.parametrize("prototypes", [True, False])
    @pytest.mark.parametrize("weight_by_confidence", [True, False])
    def test_every_switch_trains_the_student_alone(
        self, mode: str, rectify: str, prototypes: bool, weight_by_confidence: bool
    ) -> None:
        bank = self.bank() if prototypes else None
        teachers = (Teacher(network(5), bank), Teacher(network(6), bank))
        objective = Distillation(
            network(7),
            teachers,
            mode=mode,
            rectify=rectify,
            weight_by_confidence=weight_by_confidence,
            confidence=0.2,
            augmentation=AugmentationConfig(),
        )
        losses = dict(objective.losses(batch(), torch.Generator()))
        assert set(losses) == {"source", "target"}
        sum(losses.values()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in objective.student.parameters())
        assert not any(p.requires_grad for teacher in teachers for p in teacher.model.parameters())
        assert not any(teacher.model.training for teacher in teachers)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_augmentation_is_float32_under_autocast(precision: torch.dtype) -> None:
    """CUDA's autocast rounds convolutions and refuses to write their results into a float32 image."""
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    how = AugmentationConfig(jitter_probability=1.0, blur_probability=1.0)
    expected = augment(image, how, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", precision):
        actual = augment(image, how, torch.Generator().manual_seed(1))
    assert actual.dtype == torch.float32
    assert torch.equal(actual, expected)


def test_source_only_never_looks_at_the_target() -> None:
    student = network(8)
    student.dropout.eval()
    given_batch = batch()
    blind = Batch(
        given_batch.source_image, given_batch.source_label, torch.full_like(given_batch.target_image, torch.nan)
    )
    assert torch.isfinite(dict(SourceOnly(student).losses(blind, torch.Generator()))["source"])
