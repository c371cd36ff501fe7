"""A domain's files packed into a few tar archives, for storage that serves large files better than many small ones.

The archives follow WebDataset's convention: what belongs to a sample has one key, the part of the name before its first
dot: ``00000007.image.jpg`` and ``00000007.label.png``.
"""

import io
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2

from domainbridge.data.samples import FileSamples, in_threads
from domainbridge.data.stored import read_bytes
from domainbridge.errors import DataError
from domainbridge.files import replace_file

__all__ = ["IMAGE_PATTERN", "LABEL_PATTERN", "shard_pattern", "shards_of", "write_shards"]

IMAGE_PATTERN, LABEL_PATTERN = "{stem}.image", "{stem}.label"
"""Of a recipe that reads what :func:`write_shards` has written."""
_DIGITS = 6
_Members = list[tuple[str, bytes]]


def shard_pattern(name: str) -> str:
    """The shards of that name and of none that begins with it."""
    return f"{name}-{'[0-9]' * _DIGITS}.tar"


def shards_of(name: str, out: Path) -> list[Path]:
    """The shards of that name that are there already."""
    return sorted(out.glob(shard_pattern(name)))


def write_shards(samples: FileSamples, name: str, out: Path, size: int, progress: Callable[[int], None]) -> int:
    """Pack a domain: image files as they are, labels as PNGs of train ids (255: ignored).

    A shard is there whole or not at all.

    Args:
        samples: of the domain.
        name: shards are called ``NAME-000000.tar`` and so on.
        out: folder; made when needed.
        size: bytes after which a new shard begins.
        progress: called with the number of samples packed so far.

    Returns:
        The number of shards.

    Raises:
        DataError: a file cannot be read, a label does not fit its space, or the disk is full.
    """
    shard, members, held = 0, _Members(), 0
    for done, packed in enumerate(in_threads(lambda index: _packed(samples, index), range(len(samples))), 1):
        members += packed
        held += sum(len(content) for _, content in packed)
        if held >= size or done == len(samples):
            _write(out / f"{name}-{shard:0{_DIGITS}}.tar", members)
            shard, members, held = shard + 1, _Members(), 0
        progress(done)
    return shard


def _packed(samples: FileSamples, index: int) -> _Members:
    image = samples.images[index]
    try:
        members = [(f"{index:08}.image{image.suffix.lower()}", read_bytes(image))]
    except OSError as error:
        raise DataError(f"{image}: cannot be read: {error.strerror}") from error
    if samples.labels is not None and samples.decoder is not None:
        written, coded = cv2.imencode(".png", samples.decoder.read(samples.labels[index]))
        assert written
        members.append((f"{index:08}.label.png", coded.tobytes()))
    return members


def _write(path: Path, members: _Members) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(temporary, "w") as archive:
            for name, content in members:
                about = tarfile.TarInfo(name)  # no times or owners: the same files give the same bytes
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
        replace_file(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error
