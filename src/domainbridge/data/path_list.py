"""Paths by the million: one block of text and where each path ends in it, instead of an object per path."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

__all__ = ["PathList"]


class PathList(Sequence[Path]):
    """An immutable sequence of paths that takes little more memory than their text.

    It is also cheap to hand to loader processes, which share the block instead of touching a million objects.
    """

    def __init__(self, paths: Iterable[Path | str]) -> None:
        encoded = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "PathList": ...

    def __getitem__(self, index: int | slice) -> "Path | PathList":
        if isinstance(index, slice):
            return PathList(self[number] for number in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)} paths")
        return Path(self._path(index % len(self)))

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.strings())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to a tuple of the same paths, whose hash is another

    def strings(self) -> Iterator[str]:
        """The paths as text."""
        return map(self._path, range(len(self)))

    def _path(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])
