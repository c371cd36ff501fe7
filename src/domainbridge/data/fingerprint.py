"""Has a domain's list of files changed? Answered from names and sizes, without reading a file."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from domainbridge.data.path_list import PathList
from domainbridge.data.samples import FileSamples
from domainbridge.errors import DataError

__all__ = ["files_fingerprint"]

_SIZES_AT_MOST = 200_000
"""Files of a domain whose sizes are part of its fingerprint: a second; a million would take half a minute."""


def files_fingerprint(samples: FileSamples) -> str:
    """Changes when a file is added, removed or renamed, or has another size; moving the whole folder does not count.

    Of more than ``_SIZES_AT_MOST`` files the sizes of evenly spread ones are looked at.
    """
    remembered: str | None = vars(samples).get("_fingerprint")
    if remembered is None:
        # Remembered with the samples: plans ask several times per stage.
        paths = chain(_texts(samples.images), _texts(samples.labels or ()))
        here = str(Path.cwd()).rstrip(os.sep)
        absolute = [path if path.startswith(os.sep) else f"{here}{os.sep}{path}" for path in paths]
        remembered = _fingerprint(samples.name, absolute)
        object.__setattr__(samples, "_fingerprint", remembered)
    return remembered


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    return paths.strings() if isinstance(paths, PathList) else map(str, paths)


def _fingerprint(name: str, paths: list[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    # Nothing sorts between the first and the last path that does not share their common folder.
    folder = os.path.commonpath([Path(path).parent for path in (min(paths), max(paths))])
    base = len(folder.rstrip(os.sep)) + 1
    every = -(-len(paths) // _SIZES_AT_MOST)
    for position, path in enumerate(paths):
        try:
            size = Path(path).stat().st_size if position % every == 0 else ""
        except OSError as error:
            raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
        digest.update(f"{path[base:]}\0{size}\n".encode())
    return digest.hexdigest()
