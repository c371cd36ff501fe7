"""Fingerprint of a domain's files, from their names and contents."""

import hashlib
import os
from itertools import chain

from domainbridge.data.dataset import FileDataset
from domainbridge.data.digests import FileState, common_folder, file_digests, file_states

__all__ = ["files_fingerprint"]

_SMALL = 256 * 1024
"""Bytes up to which all of an image file counts."""
_LARGE_TOGETHER = 1 << 30
"""Bytes up to which all of the larger image files counts, if they are no more together."""


def files_fingerprint(dataset: FileDataset) -> str:
    """A text that changes with every added, removed or renamed file, and with the content of a file.

    All of every label file counts, and all of every image file up to 256 KiB. Of larger image files all counts while
    they are at most 1 GiB together; of more, the size, the first and the last 4 KiB of each. The times of the files do
    not count, nor does the folder around all files: touching, copying or moving the whole folder changes nothing.

    Raises:
        DataError: a file cannot be read.
    """
    fingerprint: str | None = vars(dataset).get("_fingerprint")
    if fingerprint is None:
        fingerprint = _fingerprint(dataset)
        object.__setattr__(dataset, "_fingerprint", fingerprint)  # the plan of a run asks several times per stage
    return fingerprint


def _fingerprint(dataset: FileDataset) -> str:
    paths = [str(path.absolute()) for path in chain(dataset.images, dataset.labels or ())]
    states = file_states(dataset.name, paths)
    count = len(dataset.images)
    whole = _whole_images(states[:count]) + [True] * (len(paths) - count)
    start = len(common_folder(paths).rstrip(os.sep)) + 1
    digest = hashlib.blake2b(digest_size=12)
    for path, content in zip(paths, file_digests(dataset.name, paths, states, whole), strict=True):
        digest.update(os.fsencode(f"{path[start:]}\0{content}\n"))
    return digest.hexdigest()


def _whole_images(states: list[FileState]) -> list[bool]:
    """Which images count with all of their content."""
    large = sum(state.size for state in states if state.size > _SMALL)
    return [large <= _LARGE_TOGETHER or state.size <= _SMALL for state in states]
