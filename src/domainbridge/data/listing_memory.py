"""Long listings remembered between starts, so that a million files are walked through once, not before every run.

An entry is one file: a header and the text of the paths, which is mapped, not read. It is believed while every folder
that was looked into and every split file keeps its times, size and inode: adding, removing or renaming a file changes
its folder's times, of which tools that copy or unpack set back one only. Any doubt - a damaged entry, a folder changed
while it was listed - means listing again.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file

from domainbridge import __version__
from domainbridge.data.listing import Listing
from domainbridge.data.path_list import PathList
from domainbridge.files import replace_file

__all__ = ["remembered_listing"]

_AT_LEAST = 10_000
"""Files looked at that are worth an entry; fewer take a tenth of a second."""
_SETTLED_SECONDS = 2
"""A folder changed less than this before it was listed may change again within the same tick of its file system's
clock (2 s on FAT, the coarsest in use), unseen."""
_ENTRIES = 32
"""Entries kept, the latest used ones."""


def remembered_listing(memory: Path | None, question: tuple[object, ...], make: Callable[[], Listing]) -> Listing:
    """What ``make`` returns, or returned last time if nothing has changed since.

    Args:
        memory: folder of the entries; made when needed. None: nothing is remembered.
        question: everything that the listing depends on beside the files, by its text.
        make: lists them.
    """
    if memory is None:
        return make()
    key = blake2b(repr((__version__, *question)).encode(), digest_size=16).hexdigest()
    entry = memory / f"{key}.listing"
    known = _known(entry)
    if known is not None:
        return known
    began = time.time()
    listing = make()
    if listing.seen >= _AT_LEAST and not listing.problems:
        states = [_state(path) for path in listing.watched]
        settled = (began - _SETTLED_SECONDS) * 1e9
        if all(state is not None and max(state[1], state[2]) < settled for state in states):
            _remember(entry, listing, states)
    return listing


def _state(path: str) -> list[Any] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path per folder takes as long again
    except OSError:
        return None
    return [path, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]


def _remember(entry: Path, listing: Listing, states: list[list[Any] | None]) -> None:
    lists = {"images": listing.images, "labels": listing.labels}
    given = {name: paths for name, paths in lists.items() if paths is not None}
    about = {
        "watched": states,
        "notes": listing.notes,
        "seen": listing.seen,
        "lists": {name: [paths.folder, paths.digest] for name, paths in given.items()},
    }
    arrays = {f"{name}.{part}": getattr(paths, part) for name, paths in given.items() for part in ("text", "ends")}
    temporary = entry.with_name(f"{entry.name}.{os.getpid()}.tmp")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, temporary, {"about": json.dumps(about)})
        replace_file(temporary, entry)
        by_age = sorted(entry.parent.glob("*.listing"), key=lambda path: path.stat().st_mtime_ns)
        for old in by_age[:-_ENTRIES]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError):  # a full or read-only disk costs the next start its time, nothing else
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _known(entry: Path) -> Listing | None:
    """The entry's listing; None when there is none, it is damaged, or something changed since."""
    try:
        mapped = np.asarray(np.memmap(entry, np.uint8, "r"))
        header, arrays = _content(mapped)
        about = json.loads(header["__metadata__"]["about"])
        if any(_state(state[0]) != state for state in about["watched"]):
            return None
        lists = {
            name: PathList.packed(folder, arrays[f"{name}.text"], arrays[f"{name}.ends"], digest)
            for name, (folder, digest) in about["lists"].items()
        }
        with suppress(OSError):  # another user's
            os.utime(entry)
        watched = tuple(str(state[0]) for state in about["watched"])
        return Listing(lists["images"], lists.get("labels"), (), tuple(about["notes"]), watched, about["seen"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content(mapped: NDArray[np.uint8]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a safetensors file, the arrays as views; its own reader would copy them.

    Source: the format's description at huggingface.co/docs/safetensors: 8 bytes with the header's length, JSON, data.
    """
    length = int.from_bytes(mapped[:8].tobytes(), "little")
    header = json.loads(mapped[8 : 8 + length].tobytes())
    kinds = {"U8": np.uint8, "I64": np.int64}
    arrays = {}
    for name, about in header.items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            data = mapped[8 + length + begin : 8 + length + end]
            if len(data) != end - begin:
                raise ValueError(f"{name} is cut off")
            arrays[name] = data.view(kinds[about["dtype"]])
    return header, arrays
