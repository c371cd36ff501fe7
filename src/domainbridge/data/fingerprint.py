"""Fingerprint of a domain's list of files, from names and sizes; no file is read."""

import hashlib
import os
from itertools import chain

from domainbridge.data.dataset import FileDataset
from domainbridge.data.storage.tar import size_and_mtime
from domainbridge.errors import DataError

__all__ = ["files_fingerprint"]

_ALL_AT_MOST = 60_000
"""Up to this number of files, images and labels together, the fingerprint has every size (0.2 s)."""
_SAMPLED = 5_000
"""Sizes in the fingerprint of more files: a change of a thousandth of the files is noticed in 99 of 100 cases."""


def files_fingerprint(dataset: FileDataset) -> str:
    """A text that changes with every added, removed or renamed file, and with the size of a file.

    The folder around all files does not count, so moving the whole folder changes nothing. Of more than
    ``_ALL_AT_MOST`` files, the sizes of about ``_SAMPLED`` evenly spread files count.
    """
    fingerprint: str | None = vars(dataset).get("_fingerprint")
    if fingerprint is None:
        fingerprint = _fingerprint(dataset)
        object.__setattr__(dataset, "_fingerprint", fingerprint)  # the plan of a run asks several times per stage
    return fingerprint


def _fingerprint(dataset: FileDataset) -> str:
    paths = [str(path.absolute()) for path in chain(dataset.images, dataset.labels or ())]
    every = 1 if len(paths) <= _ALL_AT_MOST else -(-len(paths) // _SAMPLED)
    # In sorted order, the first and the last path share the folder that all paths share.
    folder = os.path.commonpath([os.path.dirname(path) for path in (min(paths), max(paths))]) if paths else ""  # noqa: PTH120
    start = len(folder.rstrip(os.sep)) + 1
    digest = hashlib.blake2b(digest_size=12)
    for position, path in enumerate(paths):
        size = _size(dataset.name, path) if position % every == 0 else ""
        digest.update(os.fsencode(f"{path[start:]}\0{size}\n"))
    return digest.hexdigest()


def _size(name: str, path: str) -> int:
    try:
        return size_and_mtime(path)[0]
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read: {error.strerror}") from error
