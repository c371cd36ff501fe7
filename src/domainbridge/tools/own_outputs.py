"""The record of the files that ``predict`` wrote into a folder, so that it replaces these and no others."""

import hashlib
import json
from pathlib import Path

__all__ = ["RECORD", "OwnOutputs", "is_own_output"]

RECORD = ".domainbridge-predict.jsonl"
"""Name of the record: a JSON object per line, with name, size, digest and image of a file beside or below it."""

Mark = tuple[int, str]


class OwnOutputs:
    """The record of one folder; read at once, added to line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._marks: dict[str, set[Mark]] = {}
        for line in _lines(folder / RECORD):
            try:
                entry = json.loads(line)
                self._marks.setdefault(str(entry["name"]), set()).add((int(entry["size"]), str(entry["digest"])))
            except (ValueError, KeyError, TypeError):
                continue  # half a line of a killed command; its file counts as foreign

    def __bool__(self) -> bool:
        return bool(self._marks)

    def holds(self, path: Path) -> bool:
        """Whether a file below the folder is one that was written here and not changed since."""
        marks = self._marks.get(_name(path, self.folder))
        if not marks or path.is_symlink() or not path.is_file():
            return False
        return path.stat().st_size in {size for size, _ in marks} and _mark(path) in marks

    def add(self, path: Path, content: Path, image: Path) -> None:
        """Record that ``path`` is about to get the content of the file ``content``, the result of ``image``.

        The record comes before the move: a command that is killed in between leaves a line too many, never a file
        that is taken for a foreign one.
        """
        name, mark = _name(path, self.folder), _mark(content)
        if mark in self._marks.get(name, set()):
            return
        entry = {"name": name, "size": mark[0], "digest": mark[1], "image": str(image)}
        with (self.folder / RECORD).open("a", encoding="ascii") as file:
            file.write(json.dumps(entry) + "\n")
        self._marks.setdefault(name, set()).add(mark)


def is_own_output(path: Path, top: Path, records: dict[Path, OwnOutputs]) -> bool:
    """Whether an earlier ``predict`` wrote a file below ``top``; ``records`` keeps the records that were read."""
    for folder in path.parents:
        if folder not in records:
            records[folder] = OwnOutputs(folder)
        if records[folder] and records[folder].holds(path):
            return True
        if folder == top:
            break
    return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _mark(path: Path) -> Mark:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "blake2b").hexdigest()[:32]
