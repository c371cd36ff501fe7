"""Annotation files below a folder."""

from collections.abc import Sequence
from pathlib import Path

from domainbridge.data.annotations.find import Found, find_annotations
from domainbridge.data.walk import suffix_of
from domainbridge.errors import DataError

__all__ = ["annotations_below"]

_SUFFIXES = (".json", ".xml", ".txt", ".png", ".npy", ".tif")
_FILE_SUFFIXES = (".json", ".xml")
_MAX_TRIED = 60


def annotations_below(root: Path, names: Sequence[str]) -> Found | None:
    """The annotation of the most images, in the folder itself, a folder below, or a file.

    Args:
        root: folder.
        names: relative paths of its files.
    """
    folders = dict.fromkeys(
        folder
        for name in names
        if suffix_of(name) in _SUFFIXES
        for folder in (name.rpartition("/")[0], name.rpartition("/")[0].rpartition("/")[0])
    )
    files = [name for name in names if suffix_of(name) in _FILE_SUFFIXES]
    candidates = sorted(dict.fromkeys(["", *folders, *files]), key=lambda name: (name.count("/"), name))
    best: Found | None = None
    for name in candidates[:_MAX_TRIED]:
        try:
            annotation = find_annotations(root / name if name else root)
        except DataError:  # damaged, or several annotations in one folder: its files are tried one by one
            continue
        if annotation is not None and (best is None or annotation.num_images > best.num_images):
            best = annotation
    return best
