"""Runtimes of exported files: an image batch in, logits out. onnxruntime needs no torch."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.errors import ModelError, RecipeError
from domainbridge.evaluation.exported_file import EXTRA_FILE, SUFFIXES, ExportedConfig

__all__ = ["Session", "open_session", "padded", "unit_batch"]

_CUDA = "CUDAExecutionProvider"
_SHORT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "out of memory", "CUDNN_STATUS_ALLOC_FAILED")
"""What onnxruntime's allocators, the CPU's, CUDA and cuDNN say."""

Images = Sequence[NDArray[np.uint8]]


class Session(Protocol):
    """An exported file that is ready to run."""

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(batch, 3, height, width) in [0, 1] to (batch, classes, h, w)."""
        ...


def unit_batch(images: Images) -> NDArray[np.float32]:
    """RGB images of one size, uint8 (height, width, 3), as float32 (batch, 3, height, width) in [0, 1]."""
    batch = np.stack([np.stack(cv2.split(image)) for image in images]).astype(np.float32)
    batch /= 255
    return batch


def padded(batch: NDArray[np.float32], size: tuple[int, int], color: tuple[float, float, float]) -> NDArray[np.float32]:
    """Images (batch, 3, h, w) with a border of one color at the bottom and at the right: (batch, 3, *size)."""
    if batch.shape[2:] == size:
        return batch
    whole = np.empty((len(batch), 3, *size), np.float32)
    whole[:] = np.array(color, np.float32)[:, None, None]
    whole[:, :, : batch.shape[2], : batch.shape[3]] = batch
    return whole


def open_session(path: Path, device: str = "auto", threads: int | None = None) -> tuple[Session, ExportedConfig]:
    """Load an exported file.

    Args:
        path: ends in .onnx or .pt2.
        device: auto, cpu, cuda, cuda:1 ...
        threads: of one forward pass on the CPU; None: the runtime's choice, for torch a choice of the whole process.

    Raises:
        ModelError: no such file, not an exported one, or damaged; or the runtime is not installed.
        RecipeError: no such device.
    """
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file; `domainbridge export MODEL --format onnx --out {path.name}` writes one"
        )
    if SUFFIXES[path.suffix.lower()] == "onnx":
        return _open_onnx(path, device, threads)
    return _open_torch(path, device)


class _OnnxSession:
    def __init__(self, session: Any) -> None:
        self.session = session
        self.input = session.get_inputs()[0].name

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            output: NDArray[np.float32] = self.session.run(["logits"], {self.input: batch})[0]
        except Exception as error:  # onnxruntime's exceptions have no common class but this one
            height, width = batch.shape[-2:]
            if any(text in str(error) for text in _SHORT_OF_MEMORY):
                raise MemoryError(f"an image of {width}x{height} pixels does not fit into memory ({error})") from error
            raise ModelError(
                f"onnxruntime cannot run this file on images of {width}x{height} pixels ({error}); the network does "
                "not export for every size: `domainbridge export --size WIDTHxHEIGHT` makes a file for one size"
            ) from error
        return output


def _open_onnx(path: Path, device: str, threads: int | None) -> tuple[Session, ExportedConfig]:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(f"{path}: ONNX files are run by onnxruntime: pip install 'domainbridge[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: warnings about nodes mean nothing to a user
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = _providers(onnxruntime.get_available_providers(), device)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where onnxruntime says what it cannot load
            if len(providers) > 1 and hasattr(onnxruntime, "preload_dlls"):
                onnxruntime.preload_dlls()  # CUDA's libraries that pip has installed; only torch loads them by itself
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        properties = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as error:  # onnxruntime's exceptions have no common class but this one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: cannot be run as ONNX ({reason}); export the model folder again") from error
    if device.startswith("cuda") and _CUDA not in session.get_providers():
        raise RecipeError(
            f"device {device!r}: onnxruntime cannot use it and would take the CPU; it needs a GPU of that number and "
            "the libraries of CUDA and cuDNN (pip install 'onnxruntime-gpu[cuda,cudnn]'). Take auto or cpu"
        )
    if device.startswith("cuda"):
        session.disable_fallback()  # or a pass that fails would be made again on the CPU, and all later ones
    return _OnnxSession(session), ExportedConfig.from_properties(properties, str(path))


def _providers(available: Sequence[str], device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise RecipeError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if kind == "cuda" and _CUDA not in available:
        raise RecipeError(f"device {device!r}: this onnxruntime has no CUDA; install onnxruntime-gpu, or take cpu")
    if kind == "cpu" or _CUDA not in available:
        return ["CPUExecutionProvider"]
    return [(_CUDA, {"device_id": int(number or 0)}), "CPUExecutionProvider"]


class _TorchSession:
    def __init__(self, module: Any, device: Any) -> None:
        self.module, self.device = module, device

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            output: NDArray[np.float32] = self.module(torch.from_numpy(batch).to(self.device)).float().cpu().numpy()
        return output


def _open_torch(path: Path, device: str) -> tuple[Session, ExportedConfig]:
    try:
        import torch
    except ImportError:
        raise ModelError(f"{path}: files of torch.export are run by torch; install torch, or export as ONNX") from None
    from domainbridge.runtime.device import resolve_runtime

    place = resolve_runtime(device).device
    extra = {EXTRA_FILE: ""}
    try:
        program = torch.export.load(path, extra_files=extra)
    except Exception as error:  # torch raises whatever its parsers run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path}: cannot be loaded by torch.export ({reason}); export the model folder again"
        ) from error
    config = ExportedConfig.from_properties(_json_object(extra[EXTRA_FILE]), str(path))
    if place.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, place)
    return _TorchSession(program.module(), place), config


def _json_object(text: str) -> dict[str, str]:
    import json

    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
