"""Has a domain's list of files changed? Answered from names and sizes, without reading a file."""

import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from domainbridge.data.path_list import PathList
from domainbridge.data.samples import FileSamples
from domainbridge.data.stored import stamp
from domainbridge.errors import DataError

__all__ = ["files_fingerprint"]

_ALL_AT_MOST = 60_000
"""Files of a domain, images and labels, that are all looked at: 0.2 s, and the large labelled sets have 50,000."""
_SAMPLED = 5_000
"""Sizes looked at of more: if a thousandth of the files changed, one of them is among these in 99 of 100 cases."""


def files_fingerprint(samples: FileSamples) -> str:
    """Changes when a file is added, removed or renamed, or has another size; moving the whole folder does not count.

    Of more than ``_ALL_AT_MOST`` files the sizes of ``_SAMPLED`` evenly spread ones are looked at.
    """
    remembered: str | None = vars(samples).get("_fingerprint")
    if remembered is None:
        # Remembered with the samples: plans ask several times per stage.
        lists = [_packed(paths) for paths in (samples.images, samples.labels) if paths is not None]
        few = sum(map(len, lists)) <= _ALL_AT_MOST
        remembered = _of_all(samples.name, lists) if few else _of_many(samples.name, lists)
        object.__setattr__(samples, "_fingerprint", remembered)
    return remembered


def _packed(paths: Sequence[Path]) -> PathList:
    return paths if isinstance(paths, PathList) else PathList(paths)


def _of_all(name: str, lists: list[PathList]) -> str:
    here = str(Path.cwd()).rstrip(os.sep)
    texts = chain.from_iterable(paths.strings() for paths in lists)
    absolute = [path if path.startswith(os.sep) else f"{here}{os.sep}{path}" for path in texts]
    # Nothing sorts between the first and the last path that does not share their common folder.
    folder = os.path.commonpath([Path(path).parent for path in (min(absolute), max(absolute))])
    base = len(folder.rstrip(os.sep)) + 1
    digest = hashlib.blake2b(digest_size=12)
    for path in absolute:
        digest.update(f"{path[base:]}\0{_size(name, path)}\n".encode())
    return digest.hexdigest()


def _of_many(name: str, lists: list[PathList]) -> str:
    """Of the lists' own digests, which a remembered listing brings along, and of some sizes: no loop over all names."""
    digest = hashlib.blake2b(digest_size=12)
    every = -(-sum(map(len, lists)) // _SAMPLED)
    for paths in lists:
        digest.update(f"{paths.digest}\n".encode())
        for position in range(0, len(paths), every):
            digest.update(f"{_size(name, paths.string(position))}\n".encode())
    return digest.hexdigest()


def _size(name: str, path: str) -> int:
    try:
        return stamp(path)[0]
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
