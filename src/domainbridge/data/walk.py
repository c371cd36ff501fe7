"""Names of the files below a folder or in archives, without hidden files, system files and files that are no files."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from domainbridge.data.storage.tar import archive_members, archives, is_archives
from domainbridge.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "LABEL_SUFFIXES", "FolderFiles", "files_below", "suffix_of"]

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"}
)
LABEL_SUFFIXES = IMAGE_SUFFIXES | {".gif", ".npy"}

_SYSTEM_FOLDERS = frozenset(
    {"@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"}
    | {"__macosx", "__pycache__"}
)
"""Folders of network drives, operating systems and archivers, in lower case. Their files are thumbnails or copies."""
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


@dataclass
class FolderFiles:
    """What is below a folder.

    Attributes:
        names: relative paths with forward slashes, sorted within each folder.
        hidden: number of hidden or system files, and of files in hidden or system folders.
        broken: links to files that do not exist.
        special: pipes, devices and sockets.
    """

    names: list[str] = field(default_factory=list)
    hidden: int = 0
    broken: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    def other_suffixes(self, suffixes: frozenset[str]) -> Counter[str]:
        """Number of files per suffix, of the files without one of ``suffixes``."""
        return Counter(suffix for name in self.names if (suffix := suffix_of(name)) not in suffixes)


def suffix_of(name: str) -> str:
    """The last suffix in lower case, with its dot; '' for a name without a dot."""
    base = name.rpartition("/")[2]
    return f".{base.rpartition('.')[2].lower()}" if "." in base else ""


def files_below(folder: Path) -> FolderFiles:
    """All files below a folder; links to folders are followed, each folder is visited once.

    For archives (``name-*.tar``): the members, relative to the folder of the archives.

    Raises:
        DataError: an archive is damaged or compressed, or folders cannot be opened.
    """
    content = FolderFiles()
    if is_archives(folder):
        for archive in archives(folder):
            for name in sorted(archive_members(archive)):
                if any(_is_hidden(part) for part in name.split("/")):
                    content.hidden += 1
                else:
                    content.names.append(f"{archive.name}/{name}")
        return content
    closed: list[OSError] = []
    _walk(str(folder), "", content, set(), closed)
    if closed:
        raise DataError(
            f"{len(closed)} folder(s) cannot be opened, e.g. {closed[0].filename} ({closed[0].strerror}); give "
            "yourself the right to read them, or move them away"
        )
    return content


def _walk(
    directory: str, prefix: str, content: FolderFiles, visited: set[tuple[int, int]], closed: list[OSError]
) -> None:
    """Add the files of a directory, then those of its subfolders, and the errors of folders that cannot be opened."""
    try:
        status = os.stat(directory)  # noqa: PTH116 - strings are several times as fast as Path for a million files
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder that was read before: a walk could not end
            return
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(directory) as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name)
    except OSError as error:
        closed.append(error)
        return
    subfolders = []
    for entry in entries:
        name = prefix + entry.name
        if entry.is_dir():
            if _is_hidden(entry.name):
                content.hidden += sum(len(files) for _, _, files in os.walk(entry.path))
            else:
                subfolders.append((entry.path, name + "/"))
        elif _is_hidden(entry.name):
            content.hidden += 1
        elif entry.is_file():
            content.names.append(name)
        elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
            content.broken.append(name)
        else:
            content.special.append(name)
    for path, below in subfolders:
        _walk(path, below, content, visited, closed)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS or name.lower() in _SYSTEM_FILES
