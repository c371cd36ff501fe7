"""What a training step costs beyond the network's own passes."""

from collections.abc import Callable

import torch

from benchmarks.inputs import batch, fused, plain_optimizer, published_network, teacher_output, twin
from benchmarks.measure import interleaved
from benchmarks.reference_implementation.distillation import DistillationStep, pseudo_label, weights_of_prototypes
from benchmarks.reference_implementation.self_training import SelfTrainingStep
from benchmarks.report import Answer, answer
from domainbridge.methods.base import Objective
from domainbridge.methods.distillation import Distillation, Teacher, TeacherOutput
from domainbridge.methods.self_training import SelfTraining
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import Runtime
from domainbridge.training.loop import TrainConfig, fit
from domainbridge.training.optimizer import Schedule
from domainbridge.types import Batch

__all__ = ["distillation", "ensemble", "self_training"]


def self_training(size: int = 256, rounds: int = 5) -> Answer:
    """A class-path step of ResNet-101; the floor is two forward and backward passes and one forward pass."""
    student = published_network().train()
    crops = batch(size)
    other = published_network().train()
    published = SelfTrainingStep(other, twin(other), plain_optimizer(other))
    ours = _loop_step(SelfTraining(student, "class", augmentation=AugmentationConfig()), crops)
    bfloat16 = _loop_step(SelfTraining(student, "class", augmentation=AugmentationConfig()), crops, "bfloat16")
    ways = {
        "ours": ours,
        "reference_implementation": lambda: published(crops),
        "floor": lambda: _bare(student, crops, teachers=1),
        "ours_bfloat16": bfloat16,
        "floor_bfloat16": lambda: _bare(student, crops, teachers=1, precision="bfloat16"),
    }
    return answer(interleaved(ways, rounds=rounds), crop=size, batch=1, network="resnet101_v1c, output stride 8")


def distillation(size: int = 512, rounds: int = 5) -> Answer:
    """A distillation step of ResNet-101 with two teachers; the floor is the network's passes alone."""
    student = published_network().train()
    teachers = [
        (published_network(seed).eval().requires_grad_(False), teacher_output(1, 8, seed)[1]) for seed in (1, 2)
    ]
    crops = batch(size)
    published_student = published_network().train()
    pairs = [(model, known.vectors) for model, known in teachers]
    published = DistillationStep(published_student, pairs, plain_optimizer(published_student))
    objective = Distillation(student, tuple(Teacher(*pair) for pair in teachers), augmentation=AugmentationConfig())
    ways = {
        "ours": _loop_step(objective, crops),
        "reference_implementation": lambda: published(crops),
        "floor": lambda: _bare(student, crops, teachers=2),
        "ours_bfloat16": _loop_step(objective, crops, "bfloat16"),
    }
    return answer(interleaved(ways, rounds=rounds), crop=size, batch=1, network="resnet101_v1c, output stride 8")


def ensemble(size: int = 512, rows: int = 1, rounds: int = 7) -> Answer:
    """Ensemble weights and pseudo-labels alone, from the outputs of two teachers of ResNet-101's shape."""
    outputs = [teacher_output(rows, size // 8, seed) for seed in (1, 2)]
    teachers = tuple(Teacher(_GivenOutput(output), bank) for output, bank in outputs)
    ours = Distillation(published_network(), teachers)
    image = torch.zeros(rows, 3, size, size)
    parts = [(*output, bank.vectors) for output, bank in outputs]
    ways = {
        "ours": lambda: ours.pseudo_label(image),
        "reference_implementation": lambda: pseudo_label(parts, (size, size)),
    }
    with torch.no_grad():
        other = (ours.pseudo_label(image).label != pseudo_label(parts, (size, size))).float().mean().item()
        plain = weights_of_prototypes(parts[0][1], parts[0][2], (size, size))
        weights = TeacherOutput(*outputs[0], (size, size)).weights(slice(0, size))
        assert weights is not None
        difference = (weights - plain).abs().max().item()
        figures = interleaved(ways, rounds=rounds)
    return answer(
        figures, crop=size, batch=rows, pixels_labeled_otherwise=other, largest_difference_of_weights=difference
    )


class _GivenOutput(Segmenter):
    """A network that always gives the same output."""

    def __init__(self, output: Segmentation) -> None:
        torch.nn.Module.__init__(self)
        self.output = output

    def forward(self, image: torch.Tensor) -> Segmentation:
        return self.output


def _loop_step(objective: Objective, crops: Batch, precision: str = "float32") -> Callable[[], bool]:
    """One turn of the product's own loop, step 1 of 2: the moving average moves."""
    optimizer = fused(objective.student)
    batch_on_disk = Batch(
        (255 * crops.source_image).byte(), crops.source_label.byte(), (255 * crops.target_image).byte(), crops.rows
    )
    plan = TrainConfig("benchmark", 0, 1, Schedule(2), precision)
    runtime = Runtime(torch.device("cpu"), 0)
    return lambda: fit(
        objective, optimizer, iter([batch_on_disk]), plan, runtime, report=lambda _: None, checkpoint=lambda _: None
    )


def _bare(student: Segmenter, crops: Batch, *, teachers: int, precision: str = "float32") -> None:
    """The network's passes of a step and nothing else: no loss, no optimizer, no masks."""
    student.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        with torch.no_grad():
            for _ in range(teachers):
                student(crops.target_image)
        total = sum(student(image).logits.float().sum() for image in (crops.source_image, crops.target_image))
    assert isinstance(total, torch.Tensor)
    total.backward()
