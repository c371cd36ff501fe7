"""Paths of labels that are no files of their own.

Two forms exist, and both may be written down, compared and sent to another process like any path:

- ``annotations.json/images/a.jpg``: the part of an annotation file about one image;
- ``masks/{crack|spall}/a.png``: several files that give one label together (a "set path").
"""

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["annotation_file", "is_set_path", "parsed", "real_files", "set_path", "virtual_bytes"]

_ARCHIVE = ".tar"
_OPEN, _BETWEEN, _CLOSE = "{", "|", "}"
_lock = threading.RLock()
_memory: dict[tuple[str, str], tuple[tuple[int, int], Any]] = {}


def set_path(files: Sequence[Path]) -> Path:
    """One path for several files; one file stays as it is.

    Raises:
        ValueError: a name has one of the characters ``{ | }``.
    """
    if len(files) == 1:
        return files[0]
    names = [str(file) for file in files]
    if any(character in name for name in names for character in (_OPEN, _BETWEEN, _CLOSE)):
        raise ValueError(f"one of the characters {_OPEN} {_BETWEEN} {_CLOSE} in the names of {', '.join(names)}")
    before = _common_start(names)
    before = before[: before.rfind(os.sep) + 1]
    after = _common_start([name[len(before) :][::-1] for name in names])[::-1]
    after = after[after.find(os.sep) :] if os.sep in after else ""
    inner = _BETWEEN.join(name[len(before) : len(name) - len(after)] for name in names)
    return Path(f"{before}{_OPEN}{inner}{_CLOSE}{after}")


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[: next((i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))]


def is_set_path(path: str) -> bool:
    """Whether the path stands for several files."""
    start, end = path.find(_OPEN), path.rfind(_CLOSE)
    return 0 <= start < end and _BETWEEN in path[start:end] and not os.path.lexists(path)


def real_files(path: Path) -> tuple[Path, ...]:
    """The files that decide the content of a label, each once; a plain path is its own file."""
    text = str(path)
    if is_set_path(text):
        start, end = text.find(_OPEN), text.rfind(_CLOSE)
        return tuple(Path(f"{text[:start]}{name}{text[end + 1 :]}") for name in text[start + 1 : end].split(_BETWEEN))
    file = annotation_file(path)
    return (path,) if file is None else (file,)


def annotation_file(path: Path) -> Path | None:
    """The file that a path goes through, ``a.json`` for ``a.json/images/1.jpg``; None for any other path."""
    if os.path.exists(path):  # noqa: PTH110 - unlike a Path's, never an error
        return None
    file = next((parent for parent in path.parents if parent.is_file()), None)
    return None if file is None or file.suffix == _ARCHIVE else file


def virtual_bytes(path: Path, read: Callable[[Path], bytes]) -> bytes | None:
    """Bytes that change with the content of a label; None for a file of its own.

    A set path gives the bytes of all its files. The part of an annotation file gives a digest of that whole file and
    its own name, so that a file about 100,000 images is read once.

    Raises:
        OSError: a file cannot be read.
    """
    if is_set_path(str(path)):
        return b"\0".join(read(file) for file in real_files(path))
    file = annotation_file(path)
    if file is None:
        return None
    digest: bytes = parsed(file, "digest", lambda part: hashlib.blake2b(read(part), digest_size=32).digest())
    return digest + os.fsencode(path.relative_to(file))


def parsed(path: Path, what: str, parse: Callable[[Path], Any]) -> Any:
    """``parse(path)``, kept in memory while size and time of the file stay.

    The memory is unbounded: with fewer entries than annotation files, every read could parse a whole file again.

    Raises:
        OSError: the file does not exist.
    """
    status = path.stat()
    key, version = (what, str(path)), (status.st_size, status.st_mtime_ns)
    with _lock:
        known = _memory.get(key)
        if known is None or known[0] != version:
            _memory.pop(key, None)
            known = version, parse(path)
            _memory[key] = known
        return known[1]
