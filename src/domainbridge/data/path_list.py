"""Paths by the million: one block of text and where each path ends in it, instead of an object per path."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["PathList"]


class PathList(Sequence[Path]):
    """An immutable sequence of paths that takes little more memory than their text.

    It is also cheap to hand to loader processes, which share the block instead of touching a million objects.

    Attributes:
        folder: what all paths begin with; "" for none.
        text: the encoded names below it, one after the other, uint8; perhaps a mapped file.
        ends: where each begins in the text, and where the last ends, int64 (number of paths + 1,).
    """

    def __init__(self, names: Iterable[Path | str], folder: str = "") -> None:
        encoded = [os.fsencode(name) for name in names]
        self.folder = folder
        self.text: NDArray[np.uint8] = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._digest: str | None = None

    @classmethod
    def packed(cls, folder: str, text: NDArray[np.uint8], ends: NDArray[np.int64], digest: str) -> "PathList":
        """One whose attributes are known; ``digest`` must be its own."""
        paths = cls((), folder)
        paths.text, paths.ends, paths._digest = text, ends, digest
        return paths

    @property
    def digest(self) -> str:
        """Of the names and their order; not of the folder they are in."""
        if self._digest is None:
            content = hashlib.blake2b(self.ends.tobytes(), digest_size=16)
            content.update(self.text.tobytes())
            self._digest = content.hexdigest()
        return self._digest

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "PathList": ...

    def __getitem__(self, index: int | slice) -> "Path | PathList":
        if isinstance(index, slice):
            return PathList(map(self._name, range(*index.indices(len(self)))), self.folder)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{index} of {len(self)} paths")
        return Path(self.string(index % len(self)))

    def __iter__(self) -> Iterator[Path]:
        return map(Path, self.strings())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to a tuple of the same paths, whose hash is another

    def strings(self) -> Iterator[str]:
        """The paths as text."""
        return map(self.string, range(len(self)))

    def string(self, index: int) -> str:
        """One path as text, 0 <= index < len."""
        return f"{self.folder}{os.sep}{self._name(index)}" if self.folder else self._name(index)

    def _name(self, index: int) -> str:
        return os.fsdecode(self.text[self.ends[index] : self.ends[index + 1]].tobytes())
