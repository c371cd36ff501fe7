"""Files of prototypes: one per student, with a checksum of the tensors in the file's own metadata."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from domainbridge.errors import RunFolderError
from domainbridge.files import write_file
from domainbridge.methods.prototypes import PrototypeBank

__all__ = ["load_prototypes", "prototype_file", "save_prototypes"]

_KEY = "sha256"


def prototype_file(folder: Path, student: str) -> Path:
    """The file of one student's prototypes in a prototype stage's folder."""
    return folder / f"{student}.safetensors"


def save_prototypes(folder: Path, student: str, bank: PrototypeBank) -> None:
    """Write one student's prototypes atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    tensors = {"vectors": bank.vectors.cpu().contiguous(), "counts": bank.counts.cpu().contiguous()}
    metadata = {_KEY: _checksum(tensors)}
    write_file(prototype_file(folder, student), lambda temporary: save_file(tensors, temporary, metadata))


def load_prototypes(folder: Path, student: str, device: torch.device) -> PrototypeBank:
    """One student's prototypes from a prototype stage's folder.

    Raises:
        RunFolderError: the file is missing, or not as it was written.
    """
    path = prototype_file(folder, student)
    way_out = f"restore the file, or delete {folder / 'done.json'} to collect the prototypes again"
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            expected = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{path}: cannot be read as prototypes ({error}); {way_out}") from error
    if set(tensors) != {"vectors", "counts"} or expected != _checksum(tensors):
        raise RunFolderError(f"{path}: damaged: the content does not have the checksum of the file; {way_out}")
    return PrototypeBank(tensors["vectors"].to(device), tensors["counts"].to(device))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    hasher = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        hasher.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
