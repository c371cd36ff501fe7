"""Text files that list some of the images of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.folder import list_folder
from domainbridge.data.walk import suffix_of
from domainbridge.tools.init.pairs import FoundFolders

__all__ = ["FoundSplit", "find_splits"]

_SUFFIXES = frozenset({".txt", ".lst", ".list", ".csv", ".tsv"})
_MAX_BYTES = 20_000_000
_MAX_FILES = 40


@dataclass(frozen=True)
class FoundSplit:
    """A split file.

    Attributes:
        path: relative to the root.
        count: images that the file lists.
    """

    path: str
    count: int

    def is_for(self, *texts: str) -> bool:
        """Whether one of the words is in the file's name."""
        name = self.path.rpartition("/")[2].lower()
        return any(word in name for word in texts)


def find_splits(root: Path, names: Sequence[str], images: FoundFolders) -> list[FoundSplit]:
    """Split files below the root of which every line names an image; shortest paths first."""
    candidates = [name for name in names if suffix_of(name) in _SUFFIXES]
    splits = []
    for name in sorted(candidates, key=lambda name: (name.count("/"), name))[:_MAX_FILES]:
        path = root / name
        if path.stat().st_size > _MAX_BYTES:
            continue
        listing = list_folder(root / images.images, None, images.rule(path))
        if listing.images and not listing.problems:
            splits.append(FoundSplit(name, len(listing.images)))
    return splits
