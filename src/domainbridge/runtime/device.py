"""Device, number formats and versions of the machine; for several processes see ``distributed``."""

import contextlib
import importlib.util
import os
import platform
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from domainbridge.data.threads import usable_cores
from domainbridge.errors import RecipeError
from domainbridge.installed import first_line, installed_version, package_commit
from domainbridge.models.segmenter import Segmenter
from domainbridge.runtime.distributed import Processes
from domainbridge.runtime.loader_processes import automatic_workers, fitting_workers
from domainbridge.runtime.sync_batchnorm import synchronize_batchnorm
from domainbridge.runtime.torchrun import local_count, local_rank

__all__ = [
    "DRIVER",
    "Runtime",
    "crops_of_one_size",
    "environment",
    "forget_peak_memory",
    "peak_memory",
    "precision_note",
    "resolve_runtime",
]

DRIVER = Path("/proc/driver/nvidia/version")
"""Is there where NVIDIA's driver is loaded, on Linux."""
_WITH_BFLOAT16 = 8
"""Major compute capability of the first GPUs with bfloat16, Ampere."""


@dataclass(frozen=True)
class Runtime:
    """The machine that does the work.

    Attributes:
        device: this process's.
        num_workers: data loader processes.
        processes: that train together.
        notes: why there are fewer loader processes than asked for, or why a GPU of the machine is not used.
    """

    device: torch.device
    num_workers: int
    processes: Processes = Processes()
    notes: tuple[str, ...] = ()

    def autocast(self, precision: str) -> contextlib.AbstractContextManager[object]:
        """Mixed precision for forward passes; "float32" changes nothing."""
        if precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, precision))

    def place(self, model: Segmenter, *, channels_last: bool) -> Segmenter:
        """Move to the device, in the memory layout asked for."""
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if self.processes.count > 1:
            synchronize_batchnorm(model, self.processes.group)
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def crops_of_one_size(device: torch.device) -> Iterator[None]:
    """Inside the block, cuDNN tries its algorithms for every new size and keeps the fastest: for training crops.

    Scoring sees images of many sizes, each of which would be tried. With deterministic algorithms nothing is tried: the
    choice may differ from start to start, and with it the rounding.
    """
    before = torch.backends.cudnn.benchmark
    if device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def resolve_runtime(
    device: str = "auto",
    threads: int | None = None,
    num_workers: int | Literal["auto"] = 0,
    processes: Processes | None = None,
    batch_bytes: int = 0,
) -> Runtime:
    """From the recipe's keys to a runtime; each of several processes on a machine takes a GPU of its own.

    Args:
        device: auto, cpu, cuda, or one such as cuda:1.
        threads: of torch on the CPU; None: torch's choice.
        num_workers: data loader processes asked for, or "auto". How many there are changes no result.
        processes: that train together.
        batch_bytes: of the largest batch that this process loads.

    Raises:
        RecipeError: no such device here.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    unused = None
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        unused = _unused_gpu() if device == "cpu" else None
    if device == "cuda" and processes is not None and processes.count > 1:
        device = f"cuda:{local_rank()}"
    try:
        resolved = torch.device(device)
        if resolved.type == "meta":
            raise RuntimeError("nothing is computed there")
        if resolved.type == "cuda" and resolved.index is not None:
            torch.cuda.set_device(resolved)  # or the thread that pins batches would open a context on GPU 0
        torch.ones(1, device=resolved)  # a kernel: torch may have none for an old GPU, or for a new one
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"runtime.device: {device!r} cannot be used here ({reason}); try 'auto' or 'cpu'") from None
    cores = usable_cores()
    if num_workers == "auto":
        num_workers = automatic_workers(max(cores // local_count(), 1), gpu=resolved.type == "cuda")
    num_workers, notes = fitting_workers(num_workers, cores, batch_bytes)
    return Runtime(resolved, num_workers, processes or Processes(), (*notes, *([unused] if unused else [])))


def _unused_gpu() -> str | None:
    """Why "auto" takes no GPU where NVIDIA's driver is loaded; None without a driver, or with all GPUs hidden."""
    if not DRIVER.exists() or os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        reason = "no GPU is visible"
    except (RuntimeError, AssertionError) as error:  # a driver that is too old, a torch without CUDA, no access
        reason = str(error).splitlines()[0]
    return (
        f"runtime.device: auto takes the CPU, though NVIDIA's driver is loaded: torch {torch.__version__} cannot "
        f"use a GPU here ({reason}). A newer driver helps, or a torch for this one; a container needs --gpus all"
    )


def precision_note(device: torch.device, precisions: Collection[str]) -> str | None:
    """What to know of forward passes in bfloat16 on a GPU that has no instructions for the type, before Ampere."""
    if device.type != "cuda" or "bfloat16" not in precisions:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    if major >= _WITH_BFLOAT16:
        return None
    return (
        f"precision bfloat16: this GPU (compute capability {major}.{minor}) emulates the type, which is slow; take "
        "float16"
    )


def forget_peak_memory(device: torch.device) -> None:
    """Begin a new peak of :func:`peak_memory`, where the device counts one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """Bytes: of a GPU the most that tensors took since the last reset, of a CPU the most that this process ever had.

    None where the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if importlib.util.find_spec("resource") is None:  # Windows
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def environment(runtime: Runtime) -> dict[str, object]:
    """Versions, commit and device, for a run's ``environment.json``."""
    names = (
        "domainbridge",
        "torch",
        "timm",
        "numpy",
        "opencv-python-headless",
        "pillow",
        "pydantic",
        "safetensors",
    )
    cuda = runtime.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in names},
        "commit": package_commit(),
        "device": torch.cuda.get_device_name(runtime.device) if cuda else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "processes": runtime.processes.count,
        **(_gpu_environment(runtime.device) if cuda else {}),
    }


def _gpu_environment(device: torch.device) -> dict[str, object]:
    """What decides on a GPU's rounding and speed."""
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
        "tf32": {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32},
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory,
    }
