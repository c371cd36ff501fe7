"""A labeled set in two parts, chosen by a hash of the images' names: one decides, the other is kept for the end."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainbridge.data.dataset import FileDataset
from domainbridge.data.split_file import normalized

__all__ = ["hold_out"]


def hold_out(dataset: FileDataset, folders: Sequence[Path], share: float) -> tuple[FileDataset, FileDataset]:
    """(the rest, the held-out part) of a labeled set; each keeps the order of the files.

    The images with the smallest hashes of their names are held out. So neither the order of the files nor the place of
    their folder matters, and a new image moves at most one other image from one part to the other.

    Args:
        dataset: labeled. Of two or more images, each part has at least one.
        folders: an image's name is its path below the first of these that holds the image.
        share: of the images to hold out, in (0, 1); rounded to whole images.
    """
    ordered = sorted(range(len(dataset)), key=lambda index: _hash(dataset.images[index], folders))
    count = max(min(round(share * len(dataset)), len(dataset) - 1), 1)
    held = set(ordered[:count])
    name = f"{dataset.name} (held out)"
    return (
        _part(dataset, [index for index in range(len(dataset)) if index not in held]),
        replace(_part(dataset, sorted(held)), name=name, notes=()),
    )


def _hash(path: Path, folders: Sequence[Path]) -> tuple[bytes, str]:
    below = next((folder for folder in folders if path.is_relative_to(folder)), path.parent)
    name = normalized(path.relative_to(below).as_posix())
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).digest(), name


def _part(dataset: FileDataset, indices: Sequence[int]) -> FileDataset:
    labels = None if dataset.labels is None else tuple(dataset.labels[index] for index in indices)
    return replace(dataset, images=tuple(dataset.images[index] for index in indices), labels=labels)
