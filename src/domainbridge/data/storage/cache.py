"""Reduced copies of a domain's files: decoded, resized and mapped once, then read as memory maps.

The name of an entry is a hash of the original's content and of every operation on it. A changed file, size or label map
therefore leads to a new entry, and processes that build at the same time write the same bytes.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.config.sections import CacheConfig
from domainbridge.data.dataset import FileDataset
from domainbridge.data.decode import image_size
from domainbridge.data.digests import file_digests, file_states
from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError
from domainbridge.files import write_file
from domainbridge.types import Sample

__all__ = ["CacheRule", "CachedDataset", "build_cache", "bytes_needed"]

_DEFAULTS = CacheConfig()
_VERSION = 2
"""Part of every entry's name; must be raised if decoding or resizing gives other values."""
_MAX_DISK_SHARE = 0.9
"""Share of the free disk that a cache may take."""


@dataclass(frozen=True)
class CacheRule:
    """Place and format of the copies.

    Attributes:
        folder: folder of the cache; several recipes may share it.
        format: format of images; "lossless" changes no value, "jpeg" takes about a tenth of the disk. Labels are always
            lossless.
        quality: quality of JPEGs.
    """

    folder: Path
    format: Literal["lossless", "jpeg"] = _DEFAULTS.format
    quality: int = _DEFAULTS.quality


@dataclass(frozen=True)
class CachedDataset:
    """A domain read from its reduced copies.

    Attributes:
        name: name of the domain.
        images: entries, in the domain's order.
        labels: entries in the same order; None for an unlabeled domain.
        originals: images that the entries are copies of, for messages.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...] | None
    originals: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        """Map sample ``index`` into memory: a crop reads only its own part from the disk.

        Raises:
            DataError: an entry is missing or damaged.
        """
        label = None if self.labels is None else self.load_label(index)
        return Sample(_read(self.images[index]), label, str(self.originals[index]))

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """Label of sample ``index``, without its image."""
        assert self.labels is not None
        return _read(self.labels[index])


def build_cache(dataset: FileDataset, rule: CacheRule, progress: Callable[[int], None]) -> CachedDataset:
    """Make the missing copies; an interrupted build continues where it stopped.

    Args:
        dataset: a training domain.
        rule: place and format of the copies.
        progress: called with the number of samples with copies; may raise to stop.

    Raises:
        DataError: a file cannot be read, or the disk is too small.
        StorageError: a copy cannot be written.
    """
    digests = _digests(dataset)
    operations = f"{_VERSION} {dataset.resize} {dataset.image_rule}"
    image_operations = f"{operations} {rule.quality if rule.format == 'jpeg' else ''}"
    suffix = "jpg" if rule.format == "jpeg" else "npy"
    images = tuple(_entry(rule.folder, digests[path], image_operations, suffix) for path in dataset.images)
    labels = None
    if dataset.labels is not None and dataset.decoder is not None:
        operations = f"{operations} {dataset.decoder.fingerprint()} {dataset.label_resize} {dataset.published}"
        labels = tuple(_entry(rule.folder, digests[path], operations, "npy") for path in dataset.labels)
    missing = [
        index
        for index, image in enumerate(images)
        if not image.exists() or (labels is not None and not labels[index].exists())
    ]
    _check_disk(dataset, rule, len(missing))

    def make(index: int) -> None:
        sample = dataset[index]
        _write_image(images[index], sample.image, rule)
        if labels is not None and sample.label is not None:
            _write_array(labels[index], sample.label)

    for ready, _ in enumerate(in_threads(make, missing), len(dataset) - len(missing) + 1):
        progress(ready)
    return CachedDataset(dataset.name, images, labels, dataset.images)


def bytes_needed(dataset: FileDataset, rule: CacheRule) -> int:
    """Approximate size of a domain's copies on the disk, from the size of its first image."""
    return len(dataset) * _bytes_per_sample(dataset, rule) if len(dataset) else 0


def _bytes_per_sample(dataset: FileDataset, rule: CacheRule) -> int:
    original = image_size(dataset.images[0], dataset.image_rule)
    height, width = dataset.resize.size_for(*original) if dataset.resize is not None else original
    per_pixel = (3.0 if rule.format == "lossless" else 0.4) + (dataset.labels is not None)
    return int(height * width * per_pixel)


def _check_disk(dataset: FileDataset, rule: CacheRule, missing: int) -> None:
    if not missing:
        return
    rule.folder.mkdir(parents=True, exist_ok=True)
    needed, free = missing * _bytes_per_sample(dataset, rule), shutil.disk_usage(rule.folder).free
    if needed > _MAX_DISK_SHARE * free:
        hint = "set cache.format=jpeg, which takes a tenth, or " if rule.format == "lossless" else ""
        raise DataError(
            f"cache.folder: {rule.folder} has {free / 2**30:.1f} GiB free, but the missing copies of {dataset.name} "
            f"take about {needed / 2**30:.1f} GiB; {hint}choose another folder"
        )


def _digests(dataset: FileDataset) -> dict[Path, str]:
    """Path -> digest of the file's content; with the image's name, for labels inside an annotation file."""
    labels = dataset.labels if dataset.decoder is not None and dataset.labels else ()
    paths = (*dataset.images, *labels)
    names = [str(path.absolute()) for path in paths]
    states = file_states(dataset.name, names)
    contents = file_digests(dataset.name, names, states, [True] * len(names))
    members = [
        name[len(state.container) :] if state.container else "" for name, state in zip(names, states, strict=True)
    ]
    return {
        path: _digest(content, member) if member and not state.container.endswith(".tar") else content
        for path, content, member, state in zip(paths, contents, members, states, strict=True)
    }


def _entry(folder: Path, content: str, operations: str, suffix: str) -> Path:
    name = _digest(content, operations)
    return folder / name[:2] / f"{name}.{suffix}"


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def _write_image(path: Path, image: NDArray[np.uint8], rule: CacheRule) -> None:
    if rule.format == "lossless":
        _write_array(path, image)
        return
    coded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, rule.quality])[1]
    _write(path, lambda temporary: temporary.write_bytes(coded.tobytes()))


def _write_array(path: Path, array: NDArray[np.uint8]) -> None:
    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(array))

    _write(path, save)


def _write(path: Path, save: Callable[[Path], object]) -> None:
    def save_below_folder(temporary: Path) -> None:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)

    write_file(path, save_below_folder)


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        if path.suffix == ".npy":
            mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
            return mapped
        decoded = cv2.imdecode(np.frombuffer(path.read_bytes() or b"?", np.uint8), cv2.IMREAD_COLOR_RGB)
        if decoded is not None:
            return decoded.astype(np.uint8, copy=False)
        reason = "not a JPEG"
    except (OSError, ValueError, EOFError) as error:
        reason = str(error)
    raise DataError(f"{path}: this entry of the cache is missing or damaged ({reason}); delete it and run again")
