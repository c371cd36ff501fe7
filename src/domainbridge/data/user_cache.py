"""The user's cache folder: what is known of files, kept between starts.

The cache only saves time: without it, and after its deletion, every result is the same. Its place is
``$DOMAINBRIDGE_CACHE``, else ``$XDG_CACHE_HOME/domainbridge``, else ``~/.cache/domainbridge``.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from domainbridge.errors import StorageError
from domainbridge.files import write_text

__all__ = ["CHANGING_NS", "DAY", "KEPT_DAYS", "cache_folder", "read_cached", "write_cached"]

CHANGING_NS = 2 * 10**9
"""A file may change again within the resolution of its times: what is known of a file this young is not kept."""
KEPT_DAYS = 60
"""Entries and files of the cache that nobody asked for in so many days are dropped."""
DAY = 86_400
"""Seconds."""


def cache_folder() -> Path:
    """The user's cache folder for this program; it may be missing or read-only."""
    chosen = os.environ.get("DOMAINBRIDGE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "domainbridge"


def read_cached(path: Path) -> Any:
    """The plain values that :func:`write_cached` wrote; None when the file is missing or damaged."""
    try:
        checksum, _, body = path.read_text(encoding="utf-8").partition("\n")
        return json.loads(body) if checksum == _checksum(body) else None
    except (OSError, ValueError):
        return None


def write_cached(path: Path, content: Any) -> None:
    """Write plain values with their checksum, and drop forgotten files beside them; a full or read-only disk is no
    error.
    """
    body = json.dumps(content)
    oldest = time.time() - KEPT_DAYS * DAY
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"{_checksum(body)}\n{body}")
        for other in path.parent.iterdir():
            if other.stat().st_mtime < oldest:
                other.unlink(missing_ok=True)


def _checksum(body: str) -> str:
    return hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
