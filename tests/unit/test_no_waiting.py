"""No step waits for the device.

On the meta device tensors have no content: whatever asks for a value, a count or a data-dependent size raises, so a
loop that gets through has no host synchronization. Where there is a GPU, CUDA's own watch over synchronizations looks
too, at the optimizer's fused kernel among others.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch

from domainbridge.methods.base import Objective
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.prototypes import PrototypeBank, empty_bank, image_means, running_mean
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import Runtime
from domainbridge.training.amp import loss_scale
from domainbridge.training.loop import LossWindow, Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer
from domainbridge.types import Batch

CLASSES, CHANNELS = 5, 16
META = torch.device("meta")


def network(device: torch.device) -> Segmenter:
    with device:
        return build_segmenter(
            ModelSpec("test_efficientnet", 16, CLASSES, HeadSpec(channels=CHANNELS, dilations=(1, 2)))
        )


def distillation(device: torch.device, **options: object) -> Distillation:
    bank = PrototypeBank(torch.zeros(CLASSES, CHANNELS, device=device), torch.ones(CLASSES, device=device))
    teachers = tuple(Teacher(network(device), bank) for _ in range(2))
    return Distillation(network(device), teachers, augmentation=AugmentationConfig(), **options)  # type: ignore[arg-type]


OBJECTIVES: dict[str, Callable[[torch.device], Objective]] = {
    "source-only": lambda device: SourceOnly(network(device)),
    "class path": lambda device: SelfTraining(network(device), "class", augmentation=AugmentationConfig()),
    "cut path": lambda device: SelfTraining(
        network(device), "cut", augmentation=AugmentationConfig(), teacher_statistics="student"
    ),
    "hard": lambda device: distillation(device),
    "hard, on logits": lambda device: distillation(device, rectify="logits", weight_by_confidence=True),
    "soft": lambda device: distillation(device, mode="soft"),
}


class Nosy(SourceOnly):
    """Looks at its loss in every step."""

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
        for name, loss in super().losses(batch, generator):
            assert loss.item() >= 0
            yield name, loss


class Still(torch.optim.Optimizer):
    """Stands in for fused AdamW, of which there is none on the meta device."""

    def __init__(self, parameters: Iterator[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {"base_rate": 0.0, "lr": 0.0})

    def step(self, closure: object = None) -> None: ...


@contextmanager
def no_tensor_of_a_list() -> Iterator[None]:
    """Such a tensor is copied to its device, which the meta device does not show, and waited for."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((torch.Tensor, "new_tensor"), (torch, "tensor"), (torch, "as_tensor")):
            patch.setattr(place, name, watched(getattr(place, name)))
        yield


def watched(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A maker of tensors of lists that must not make any on the device."""

    def made(*inputs: object, **options: object) -> torch.Tensor:
        tensor = make(*inputs, **options)
        if tensor.device == META:
            raise RuntimeError("a tensor of a list on the meta device: copied there, and waited for")
        return tensor

    return made


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is the one place that may wait."""
    unread = Progress(0, {}, 0.0, 0.0)
    monkeypatch.setattr(LossWindow, "read", lambda *_: (unread, None))


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch, without_reports: None) -> None:
    """Autocast knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())


def take_steps(objective: Objective, device: torch.device, steps: int = 3, precision: str = "float32") -> bool:
    image, label = torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32, dtype=torch.uint8)
    student = objective.student.train()
    optimizer = Still(student.parameters()) if device == META else build_optimizer(student, 1e-3, 10, 0.01)
    plan = TrainConfig("stage", 0, 0, Schedule(steps), precision)
    scale = loss_scale(precision, device)
    batches = iter([Batch(image, label, image)] * steps)
    ignored = {"report": lambda _: None, "checkpoint": lambda _: None}
    with no_tensor_of_a_list():
        return fit(objective, optimizer, batches, plan, Runtime(device, 0), **ignored, scale=scale)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.usefixtures("on_meta")
def test_steps_need_no_value(name: str, precision: str) -> None:
    assert take_steps(OBJECTIVES[name](META), META, precision=precision)


@pytest.mark.usefixtures("on_meta")
def test_one_look_at_a_loss_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        take_steps(Nosy(network(META)), META)


def test_a_tensor_of_a_list_is_noticed() -> None:
    with no_tensor_of_a_list(), pytest.raises(RuntimeError, match="waited for"):
        torch.zeros(1, device=META).new_tensor([1.0])


def test_a_prototype_pass_needs_no_value() -> None:
    bank = empty_bank(CLASSES, CHANNELS, META)
    means, seen = image_means(network(META).eval(), torch.zeros(2, 3, 32, 32, device=META), CLASSES, 10)
    assert running_mean(bank, means, seen, 3000).vectors.shape == (CLASSES, CHANNELS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA watches over its own synchronizations")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.usefixtures("without_reports")
def test_steps_do_not_synchronise(name: str, precision: str) -> None:
    device = torch.device("cuda")
    objective = OBJECTIVES[name](device)
    take_steps(objective, device, steps=1, precision=precision)  # lazy initializations may wait once
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert take_steps(objective, device, precision=precision)
    finally:
        torch.cuda.set_sync_debug_mode("default")
