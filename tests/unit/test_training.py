"""Schedule, optimizer, loop, checkpoints, seeds."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import Dataset

from domainbridge.data.loaders import batches
from domainbridge.errors import RecipeError, RunFolderError, StorageError, TrainingError
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime import device
from domainbridge.runtime.device import precision_note, resolve_runtime
from domainbridge.runtime.loader_processes import fitting_workers
from domainbridge.runtime.memory import enough_memory
from domainbridge.runtime.sync_batchnorm import SyncBatchNorm2d, SyncBatchNormAct2d, synchronize_batchnorm
from domainbridge.seeding import derive_seed, numpy_generator, torch_generator
from domainbridge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer, set_rates
from domainbridge.types import Batch

SPEC = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))


def batch(value: float = 0.5) -> Batch:
    image = torch.full((2, 3, 32, 32), int(255 * value), dtype=torch.uint8)
    return Batch(image, torch.ones(2, 32, 32, dtype=torch.uint8), image)


@given(st.integers(1, 5000), st.integers(0, 3000))
def test_schedule_rises_then_falls(steps: int, warmup: int) -> None:
    schedule = Schedule(steps, warmup)
    factors = [schedule.factor(step) for step in range(0, steps, max(steps // 40, 1))]
    assert all(0 <= factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_head_learns_faster() -> None:
    optimizer = build_optimizer(build_segmenter(SPEC), 1e-4, 10, 0.01)
    set_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-5, 5e-4])


class Poisoned(SourceOnly):
    """Its loss is not finite at one step."""

    def __init__(self, student, bad_step: int) -> None:
        super().__init__(student)
        self.bad_step = bad_step
        self.step = -1

    def before_step(self, step: int) -> None:
        self.step = step

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
        for name, loss in super().losses(batch, generator):
            yield name, loss * torch.nan if self.step == self.bad_step else loss


def test_a_bad_loss_freezes_the_weights_even_between_reports() -> None:
    torch.manual_seed(0)
    student = build_segmenter(SPEC).train()
    objective = Poisoned(student, bad_step=3)
    seen: list[torch.Tensor] = []
    saved: list[int] = []

    def batches():
        while True:
            seen.append(student.head.classifier.weight.detach().clone())
            yield batch()

    plan = TrainConfig("r1-cut", 0, 0, Schedule(10), log_every=8, checkpoint_every=2)
    with pytest.raises(TrainingError, match=r"stage r1-cut, step 3: the loss \(source\) or its gradient is not finite"):
        fit(
            objective,
            build_optimizer(student, 1e-2, 10, 0.01),
            batches(),
            plan,
            resolve_runtime("cpu"),
            report=lambda progress: None,
            checkpoint=saved.append,
        )
    assert saved == [2]
    assert not torch.equal(seen[2], seen[3]), "step 2 moved the weights"
    assert torch.equal(seen[3], student.head.classifier.weight), "step 3 did not"


@pytest.mark.parametrize("path", ["cut", "class"])
def test_parts_of_a_batch_add_up_to_the_whole(path: str) -> None:
    """With BatchNorm in evaluation mode and no dropout; masks and colors are drawn for the whole batch."""
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8) for _ in range(2))
    label = torch.randint(0, 3, (4, 8, 8), generator=generator, dtype=torch.uint8)
    label = label.repeat_interleave(4, 1).repeat_interleave(4, 2)

    def gradients(parts: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        student = build_segmenter(
            ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1,), dropout=0))
        )
        student.train()
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        objective = SelfTraining(
            student, path, confidence=0.0, augmentation=AugmentationConfig(), teacher_statistics="student"
        )
        assert fit(
            objective,
            build_optimizer(student, 1e-12, 10, 0.0),
            iter([Batch(source, label, target)]),
            TrainConfig("r1", 0, 0, Schedule(1), gradient_accumulation_steps=parts),
            resolve_runtime("cpu"),
            report=lambda progress: None,
            checkpoint=lambda step: None,
        )
        return [weight.grad for weight in student.parameters() if weight.grad is not None]

    whole = gradients(1)
    assert any(gradient.abs().sum() > 0 for gradient in whole)
    for one, other in zip(whole, gradients(2), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_a_gradient_that_is_not_finite_freezes_the_weights_too() -> None:
    student = build_segmenter(SPEC).train()
    before = student.head.classifier.weight.detach().clone()
    student.head.classifier.weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(TrainingError, match="step 0"):
        fit(
            SourceOnly(student),
            build_optimizer(student, 1e-2, 10, 0.01),
            iter([batch()] * 2),
            TrainConfig("s", 0, 0, Schedule(2)),
            resolve_runtime("cpu"),
            report=lambda progress: None,
            checkpoint=lambda step: None,
        )
    assert torch.equal(student.head.classifier.weight, before)


def test_reports_and_a_requested_stop() -> None:
    student = build_segmenter(SPEC).train()
    reports: list[Progress] = []
    saved: list[int] = []
    finished = fit(
        SourceOnly(student),
        build_optimizer(student, 1e-3, 10, 0.01),
        iter([batch()] * 9),
        TrainConfig("s", 0, 0, Schedule(9), log_every=2),
        resolve_runtime("cpu"),
        report=reports.append,
        checkpoint=saved.append,
        stop_requested=lambda: len(reports) == 2,
    )
    assert not finished
    assert [report.step for report in reports] == [2, 4, 5]
    assert saved == [5]
    assert reports[0].losses["source"] > reports[-1].losses["source"] > 0


def test_no_host_synchronisation_between_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a tensor's value on the host would make a GPU wait; only reports may do it."""
    student = build_segmenter(SPEC).train()
    reads: list[str] = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def watched(self, *arguments, _name=name, _original=original):
            reads.append(_name)
            return _original(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, watched)
    fit(
        SourceOnly(student),
        build_optimizer(student, 1e-3, 10, 0.01),
        iter([batch()] * 6),
        TrainConfig("s", 0, 0, Schedule(6), log_every=3),
        resolve_runtime("cpu"),
        report=lambda progress: None,
        checkpoint=lambda step: None,
    )
    assert reads == ["tolist", "tolist"]


class TestCheckpoints:
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(3, "abc", {"w": torch.ones(2)}, {}, {"state": {}, "param_groups": []}, 1.5)

    def test_round_trip(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "state.pt", self.checkpoint())
        loaded = load_checkpoint(tmp_path / "state.pt")
        assert (loaded.step, loaded.fingerprint, loaded.seconds) == (3, "abc", 1.5)
        assert torch.equal(loaded.student["w"], torch.ones(2))

    def test_a_failed_write_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_checkpoint(tmp_path / "state.pt", self.checkpoint())
        before = (tmp_path / "state.pt").read_bytes()

        def half(content, path) -> None:
            path.write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(StorageError, match=r"state\.pt: cannot be written \(disk full\)"):
            save_checkpoint(tmp_path / "state.pt", self.checkpoint())
        assert (tmp_path / "state.pt").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]

    def test_a_broken_one_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "state.pt").write_bytes(b"nothing")
        with pytest.raises(RunFolderError, match=r"state\.pt: not a checkpoint"):
            load_checkpoint(tmp_path / "state.pt")

    def test_a_disk_that_fails_is_not_blamed_on_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_checkpoint(tmp_path / "state.pt", self.checkpoint())

        def failing(*_: object, **__: object) -> None:
            raise OSError("input/output error")

        monkeypatch.setattr(torch, "load", failing)
        with pytest.raises(OSError, match="input/output error"):
            load_checkpoint(tmp_path / "state.pt")


class TestMemory:
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("DefaultCPUAllocator: can't allocate"),
            MemoryError(),
            torch.AcceleratorError("CUDA error: out of memory"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            torch.distributed.DistBackendError("NCCL error: unhandled cuda error: Cuda failure 'out of memory'"),
            RuntimeError("FIND was unable to find an engine to execute this computation after trying 9 plans."),
        ],
    )
    def test_want_of_it_is_told_with_a_way_out(self, error: Exception) -> None:
        with (
            pytest.raises(TrainingError, match=r"stage r1-cut does not fit(.|\n)*training\.activation_checkpointing"),
            enough_memory("stage r1-cut"),
        ):
            raise error

    def test_the_message_of_the_gpu_is_told(self) -> None:
        facts = "Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB of which 1 GiB is free."
        error = torch.OutOfMemoryError(f"CUDA out of memory. {facts} Of the allocated memory 3 GiB is torch's")
        with pytest.raises(TrainingError, match=r"memory \(CUDA out.*1 GiB is free\); what was"), enough_memory("a"):
            raise error

    def test_the_message_of_the_cpu_is_told(self) -> None:
        with pytest.raises(TrainingError, match=r"memory \(DefaultCPUAllocator: can't allocate"), enough_memory("a"):
            torch.empty(2**50)

    def test_other_errors_are_left_alone(self) -> None:
        with pytest.raises(RuntimeError, match="shapes"), enough_memory("stage r1-cut"):
            raise RuntimeError("shapes differ")


class _Dying(Dataset[int]):
    def __getitem__(self, step: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return step


def test_a_killed_loader_is_told_with_a_way_out() -> None:
    with pytest.raises(TrainingError, match=r"loader process(.|\n)*runtime\.num_workers"):
        list(batches(_Dying(), range(3), num_workers=1))


def test_unknown_devices() -> None:
    for name in ("abacus", "meta"):
        with pytest.raises(RecipeError, match=f"'{name}' cannot be used here"):
            resolve_runtime(name)


def test_a_gpu_that_torch_cannot_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (version 12040).")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", too_old)
    monkeypatch.setattr(device, "DRIVER", tmp_path)
    (note,) = resolve_runtime().notes
    assert "too old (version 12040)" in note
    assert resolve_runtime("cpu").notes == (), "asked for"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resolve_runtime().notes == (), "hidden on purpose"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device, "DRIVER", tmp_path / "none")
    assert resolve_runtime().notes == ()


def test_bfloat16_on_an_old_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    gpu = torch.device("cuda:0")
    assert "capability 7.5" in str(precision_note(gpu, {"float32", "bfloat16"}))
    assert precision_note(gpu, {"float16"}) is None
    assert precision_note(torch.device("cpu"), {"bfloat16"}) is None
    capability = (8, 0)
    assert precision_note(gpu, {"bfloat16"}) is None


class TestSeeds:
    @given(st.integers(0, 2**31), st.text(), st.text())
    def test_every_part_matters(self, seed: int, one: str, other: str) -> None:
        assert derive_seed(seed, one, other) == derive_seed(seed, one, other)
        assert derive_seed(seed, one) != derive_seed(seed + 1, one)
        if one != other:
            assert derive_seed(seed, one, other) != derive_seed(seed, other, one)

    def test_text_and_numbers_differ(self) -> None:
        assert derive_seed(0, 1) != derive_seed(0, "1")
        assert derive_seed(0, "a", "b") != derive_seed(0, "ab")

    def test_generators_repeat(self) -> None:
        assert torch.equal(
            torch.rand(3, generator=torch_generator(1, "x")), torch.rand(3, generator=torch_generator(1, "x"))
        )
        assert numpy_generator(1, "x").random() == numpy_generator(1, "x").random()


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet18_v1c", "test_efficientnet"])
def test_statistics_over_processes_leave_the_network_what_it_is(backbone: str) -> None:
    """timm keeps activations inside its BatchNorm layers."""
    network = build_segmenter(ModelSpec(backbone, 32, 3, HeadSpec(channels=16, dilations=(1, 2)))).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = network(image).logits
    names = list(network.state_dict())
    synchronize_batchnorm(network)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, SyncBatchNorm2d | SyncBatchNormAct2d) for norm in norms)
    assert list(network.state_dict()) == names
    assert torch.equal(network(image).logits, before)


class TestLoaderProcesses:
    def test_all_that_fit_are_started(self) -> None:
        assert fitting_workers(4, 8, 2**20, free=2**30) == (4, [])

    def test_fewer_where_shared_memory_is_small(self) -> None:
        batch = 4 * 512 * 512 * 7
        started, (note,) = fitting_workers(4, 8, batch, free=64 * 2**20)
        assert started == 1
        assert "64 MiB are free, 4 loader processes need 149 MiB: 1 are started" in note
        assert "--shm-size" in note
        assert fitting_workers(4, 8, batch, free=2**20)[0] == 0

    def test_every_cut_is_told(self) -> None:
        started, notes = fitting_workers(8, 1, 4 * 512 * 512 * 7, free=2**20)
        assert started == 0
        assert "runtime.num_workers: 8, but this process may use 1 core(s)" in notes[0]
        assert "--cpus-per-task of srun" in notes[0]
        assert "0 are started" in notes[1]

    def test_a_loader_that_hangs_is_told(self) -> None:
        class Hanging(Dataset[int]):
            def __getitem__(self, index: int) -> int:
                time.sleep(60)
                return index

        with pytest.raises(TrainingError, match=r"no batch came from the loader processes for 1 s: .*--shm-size"):
            list(batches(Hanging(), range(2), num_workers=1, patience=1))


def test_no_more_loaders_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert resolve_runtime("cpu", None, 8).num_workers == 2
    assert resolve_runtime("cpu", None, 0).num_workers == 0
