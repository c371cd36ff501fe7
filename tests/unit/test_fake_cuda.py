"""Training steps on a device ``cuda`` that has no content: devices, float types, copies and waits as on a GPU."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from domainbridge.methods.base import Objective
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.masked_consistency import MaskedConsistency
from domainbridge.methods.prototype_denoising import PrototypeDenoising
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.ops.transfer import from_device
from domainbridge.runtime.device import Runtime, resolve_runtime
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import LossWindow, Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule
from domainbridge.types import Batch
from fake_cuda import CUDA, Seen, Watch, on_fake_cuda

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # by copy.deepcopy

CLASSES, STEPS, ROWS, SIDE = 19, 2, 4, 64
NETWORKS = {
    "resnet18_v1c, deeplabv2": ModelSpec("resnet18_v1c", 8, CLASSES, HeadSpec(channels=16, dilations=(6, 12))),
    "efficientnet, deeplabv3plus": ModelSpec(
        "test_efficientnet", 16, CLASSES, HeadSpec("deeplabv3plus", channels=16, dilations=(1, 2))
    ),
}
COPIES = {"source-only": 3, "cut": 6, "class": 6}
"""From the host to the device in a step: two images and a label, then the draws: mask, jitter, blur."""

MOST_OTHERS = {"source-only": 40, "cut": 280, "class": 280}
"""Operations of a step outside the networks: mostly the augmentation's, whatever the size of the networks."""


def distillation(network: Callable[[], Segmenter], **options: object) -> Distillation:
    def bank() -> PrototypeBank:
        return PrototypeBank(torch.zeros(CLASSES, 16, device=CUDA), torch.ones(CLASSES, device=CUDA))

    teachers = tuple(Teacher(network(), bank()) for _ in range(2))
    return Distillation(network(), teachers, augmentation=AugmentationConfig(), **options)  # type: ignore[arg-type]


OBJECTIVES: dict[str, Callable[[Callable[[], Segmenter]], Objective]] = {
    "source-only": lambda network: SourceOnly(network()),
    "cut": lambda network: SelfTraining(network(), "cut", augmentation=AugmentationConfig()),
    "class": lambda network: SelfTraining(network(), "class", augmentation=AugmentationConfig()),
    "hard": lambda network: distillation(network),
    "hard, on logits": lambda network: distillation(network, rectify="logits", weight_by_confidence=True),
    "soft": lambda network: distillation(network, mode="soft"),
}


class Still(torch.optim.Optimizer):
    """Stands in for fused AdamW, which is one operation."""

    def __init__(self, student: Segmenter) -> None:
        self.student = student
        super().__init__(student.parameters(), {"base_rate": 0.0, "lr": 0.0})

    def step(self, closure: object = None) -> None: ...

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Gradients without content, as a backward pass would leave them."""
        for weight in self.student.parameters():
            weight.grad = weight.detach()


def build(spec: ModelSpec) -> Segmenter:
    with CUDA:
        return build_segmenter(spec)


def take_steps(objective: Objective, precision: str) -> Seen:
    """A few steps of the real loop."""
    image, label = torch.zeros(ROWS, 3, SIDE, SIDE, dtype=torch.uint8), torch.zeros(ROWS, SIDE, SIDE, dtype=torch.uint8)
    student, watch = objective.student.train(), Watch()
    config = TrainConfig("stage", 0, 0, Schedule(STEPS), precision)
    batches, scale = iter([Batch(image, label, image)] * STEPS), loss_scale(precision, CUDA)
    ignored = {"report": lambda _: None, "checkpoint": lambda _: None}
    with watch:
        fit(objective, Still(student), batches, config, Runtime(CUDA, 0), **ignored, scale=scale)  # type: ignore[arg-type]
    return watch.seen


@pytest.fixture(autouse=True)
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is the one place that may wait."""
    monkeypatch.setattr(LossWindow, "read", lambda *_: (Progress(0, {}, 0.0, 0.0), None))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("spec", NETWORKS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_mix_nothing_and_wait_for_nothing(name: str, spec: str, precision: str) -> None:
    seen = on_fake_cuda(lambda: take_steps(OBJECTIVES[name](lambda: build(NETWORKS[spec])), precision))
    assert seen.faults == set()
    assert all(asynchronous for _, asynchronous, _ in seen.copies), seen.copies
    assert sum(seen.copies.values()) <= STEPS * COPIES.get(name, 5)


FURTHER: dict[str, Callable[[Callable[[], Segmenter]], Objective]] = {
    "masked": lambda network: MaskedConsistency(network(), "none", block_size=16, augmentation=AugmentationConfig()),
    "denoised": lambda network: PrototypeDenoising(network(), teacher_statistics="student", ignore_top=2),
}


@pytest.mark.parametrize("name", FURTHER)
def test_steps_of_further_methods_mix_nothing_and_wait_for_nothing(name: str) -> None:
    """In one precision: what these methods add to the objectives above is little. A step of ``ddb-online``, which joins
    the objectives, has too many operations for torch's tensors without content: the process crashes.
    """
    network = partial(build, NETWORKS["efficientnet, deeplabv3plus"])
    seen = on_fake_cuda(lambda: take_steps(FURTHER[name](network), "float16"))
    assert seen.faults == set()
    assert all(asynchronous for _, asynchronous, _ in seen.copies), seen.copies


@pytest.mark.parametrize("name", OBJECTIVES)
def test_most_operations_are_the_networks(name: str) -> None:
    """Forward passes only; a backward pass adds about two operations of the networks' to each of theirs."""

    def count() -> tuple[float, int]:
        objective = OBJECTIVES[name](lambda: build(NETWORKS["resnet18_v1c, deeplabv2"]))
        step, passes = take_steps(objective, "float32"), Watch()
        image = torch.zeros(ROWS, 3, SIDE, SIDE, device=CUDA)
        with passes:
            for _ in range(objective.num_losses):
                objective.student(image)
            for other in objective.networks[1:]:
                other(image)
        return sum(step.operations.values()) / STEPS, sum(passes.operations.values())

    total, inside = on_fake_cuda(count)
    print(f"{name}: {total:.0f} operations a step, {inside} of them the networks' own")
    assert total - inside <= MOST_OTHERS.get(name, 370)


class Faulty(SourceOnly):
    """Has the faults that are looked for."""

    def __init__(self, student: Segmenter, *, waits: bool) -> None:
        super().__init__(student)
        self.waits = waits

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        for name, loss in super().losses(batch, generator):
            assert not self.waits or loss >= 0
            _ = batch.source_image.half() * batch.source_image
            yield name, loss


def test_faults_are_seen() -> None:
    spec = NETWORKS["resnet18_v1c, deeplabv2"]
    seen = on_fake_cuda(lambda: take_steps(Faulty(build(spec), waits=False), "float32"))
    assert any("two float types" in fault for fault in seen.faults)
    with pytest.raises(AssertionError, match="DataDependentOutputException"):
        on_fake_cuda(lambda: take_steps(Faulty(build(spec), waits=True), "float32"))


def test_results_are_waited_for_in_the_queue_of_their_own_device() -> None:
    """A thread's current device is the first one, whatever device a model is on."""

    def waited() -> list[torch.device]:
        devices: list[torch.device] = []

        class Stream:
            def __init__(self, device: torch.device) -> None:
                self.device = device

            def record_event(self) -> "Stream":
                return self

            def synchronize(self) -> None:
                devices.append(self.device)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "current_stream", Stream)
            copies, arrived = from_device(torch.zeros(2, device="cuda:1"), torch.zeros(1, device="cuda:1"))
            arrived()
        assert all(copy.device.type == "cpu" for copy in copies)
        return devices

    assert on_fake_cuda(waited) == [torch.device("cuda:1")]


@pytest.mark.parametrize(("name", "chosen"), [("cuda", []), ("cuda:1", [torch.device("cuda:1")])])
def test_a_device_with_a_number_becomes_the_current_one(name: str, chosen: list[torch.device]) -> None:
    """torch refuses to make a device without a number the current one, which it is anyway."""

    def resolve() -> list[torch.device]:
        devices: list[torch.device] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "set_device", devices.append)
            assert resolve_runtime(name).device == torch.device(name)
        return devices

    assert on_fake_cuda(resolve) == chosen
