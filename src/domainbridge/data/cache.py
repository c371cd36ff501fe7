"""Reduced copies of a domain's files: decoded, resized and mapped once, read back as memory maps.

An entry is named by a hash of the original's content and of everything that was done to it, so a changed file, size or
label map finds no entry and gets a new one, and processes that build at the same time write the same bytes.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.data.decode import image_size
from domainbridge.data.path_list import PathList
from domainbridge.data.samples import FileSamples, in_threads
from domainbridge.data.stored import read_bytes, stamp
from domainbridge.errors import DataError
from domainbridge.files import replace_file
from domainbridge.types import Sample

__all__ = ["CacheRule", "CachedSamples", "build_cache", "bytes_needed"]

_VERSION = 1
"""Part of every entry's name; to be raised when decoding or resizing gives other values."""
_FULL = 0.9
"""Share of the free disk that a cache may take."""


@dataclass(frozen=True)
class CacheRule:
    """Where and how copies are kept.

    Attributes:
        folder: of the cache; may be shared by recipes.
        format: of images; "lossless" changes no value, "jpeg" takes about a tenth of the disk. Labels are lossless.
        quality: of JPEGs.
    """

    folder: Path
    format: Literal["lossless", "jpeg"] = "lossless"
    quality: int = 95


@dataclass(frozen=True)
class CachedSamples:
    """A domain read from its reduced copies.

    Attributes:
        name: of the domain.
        images: entries, in the domain's order.
        labels: likewise; None for an unlabelled domain.
        originals: what the samples are called in messages.
    """

    name: str
    images: Sequence[Path]
    labels: Sequence[Path] | None
    originals: Sequence[Path]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> Sample:
        """Map sample ``index`` into memory: only what a crop touches is read from the disk.

        Raises:
            DataError: an entry is missing or damaged.
        """
        label = None if self.labels is None else self.load_label(index)
        return Sample(_read(self.images[index]), label, str(self.originals[index]))

    def load_label(self, index: int) -> NDArray[np.uint8]:
        """The label of sample ``index`` alone."""
        assert self.labels is not None
        return _read(self.labels[index])


def build_cache(samples: FileSamples, rule: CacheRule, progress: Callable[[int], None]) -> CachedSamples:
    """Make the copies that are missing; a build that was interrupted goes on where it stopped.

    Args:
        samples: of a training domain.
        rule: see there.
        progress: called with the number of samples that are ready; it may raise to stop.

    Raises:
        DataError: a file cannot be read, or the disk is too small.
    """
    memory = rule.folder / "index" / f"{_digest(samples.name, *map(str, _absolute(samples.images)))}.json"
    known = _known_contents(memory)
    seen: dict[str, list[Any]] = {}
    shape = f"{_VERSION} {samples.resize}"
    way = f"{shape} {rule.quality if rule.format == 'jpeg' else ''}"
    suffix = "jpg" if rule.format == "jpeg" else "npy"
    images = [_entry(rule.folder, _content(path, known, seen), way, suffix) for path in _absolute(samples.images)]
    labels = None
    if samples.labels is not None and samples.decoder is not None:
        way = f"{shape} {samples.decoder.fingerprint()}"
        labels = [_entry(rule.folder, _content(path, known, seen), way, "npy") for path in _absolute(samples.labels)]
    if seen != known:
        _write(memory, lambda temporary: temporary.write_text(json.dumps(seen), encoding="utf-8"))
    missing = [
        index
        for index, image in enumerate(images)
        if not image.exists() or (labels is not None and not labels[index].exists())
    ]
    _check_disk(samples, rule, len(missing))

    def make(index: int) -> None:
        sample = samples.load(index)
        _write_image(images[index], sample.image, rule)
        if labels is not None and sample.label is not None:
            _write_array(labels[index], sample.label)

    for ready, _ in enumerate(in_threads(make, missing), len(samples) - len(missing) + 1):
        progress(ready)
    return CachedSamples(samples.name, PathList(images), None if labels is None else PathList(labels), samples.images)


def _absolute(paths: Sequence[Path]) -> Iterator[Path]:
    return (path.absolute() for path in paths)


def bytes_needed(samples: FileSamples, rule: CacheRule) -> int:
    """About how much disk the copies of a domain take, judged by the size of its first image."""
    return len(samples) * _bytes_per_sample(samples, rule) if len(samples) else 0


def _bytes_per_sample(samples: FileSamples, rule: CacheRule) -> int:
    size = image_size(samples.images[0])
    height, width = samples.resize.size_for(*size) if samples.resize is not None else size
    per_pixel = (3.0 if rule.format == "lossless" else 0.4) + (samples.labels is not None)
    return int(height * width * per_pixel)


def _check_disk(samples: FileSamples, rule: CacheRule, missing: int) -> None:
    if not missing:
        return
    rule.folder.mkdir(parents=True, exist_ok=True)
    needed, free = missing * _bytes_per_sample(samples, rule), shutil.disk_usage(rule.folder).free
    if needed > _FULL * free:
        hint = "take cache.format=jpeg, a tenth of that, or " if rule.format == "lossless" else ""
        raise DataError(
            f"cache.folder: {rule.folder} has {free / 2**30:.1f} GiB free, but the missing copies of {samples.name} "
            f"take about {needed / 2**30:.1f} GiB; {hint}choose another folder"
        )


def _content(path: Path, known: dict[str, Any], seen: dict[str, list[Any]]) -> str:
    """Digest of a file's content, remembered as long as its size and time stay."""
    try:
        now = list(stamp(str(path)))
        entry = known.get(str(path))
        if entry is None or entry[:2] != now:
            entry = [*now, hashlib.blake2b(read_bytes(path), digest_size=16).hexdigest()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    seen[str(path)] = entry
    return str(entry[2])


def _known_contents(memory: Path) -> dict[str, Any]:
    try:
        content = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _entry(folder: Path, content: str, way: str, suffix: str) -> Path:
    name = _digest(content, way)
    return folder / name[:2] / f"{name}.{suffix}"


def _digest(*words: str) -> str:
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()


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
    """Atomically, also beside another process that writes the same entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        save(temporary)
        replace_file(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


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
