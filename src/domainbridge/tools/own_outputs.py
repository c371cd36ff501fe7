"""The record of the files that ``predict`` wrote into a folder, so that it replaces these and no others."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "Done", "OwnOutputs", "is_own_output"]

RECORD = ".domainbridge-predict.jsonl"
"""Name of the record: a JSON object per line, with name, size, digest and image of a file beside or below it; or with
what is known of an input whose files are all written. Each of several processes has a record of its own, with its
number before the suffix."""

Mark = tuple[int, str]


@dataclass(frozen=True)
class Done:
    """An input whose results are all written.

    Attributes:
        settings: digest of the model and the options.
        source: size in bytes and time of the last change (ns) of the input.
        files: names of its results, relative to the folder of the record.
        shares: pixels per class, and whatever else is told of the input in tables.
    """

    settings: str
    source: tuple[int, int]
    files: tuple[str, ...]
    shares: dict[str, Any]

    @staticmethod
    def source_of(path: Path) -> tuple[int, int]:
        """What is kept of an input file."""
        status = path.stat()
        return status.st_size, status.st_mtime_ns


class OwnOutputs:
    """The record of one folder; read at once, added to line by line.

    Attributes:
        folder: of the record.
        done: by the name of the results without their endings: inputs whose results are all written.
    """

    def __init__(self, folder: Path, process: int = 0) -> None:
        self.folder = folder
        self.done: dict[str, Done] = {}
        self._path = folder / (RECORD if process == 0 else RECORD.replace(".jsonl", f".{process}.jsonl"))
        self._marks: dict[str, set[Mark]] = {}
        for path in sorted(folder.glob(RECORD.replace(".jsonl", "*.jsonl"))):
            for line in _lines(path):
                try:
                    self._read(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    continue  # half a line of a killed command; its file counts as foreign

    def _read(self, entry: dict[str, Any]) -> None:
        if "done" in entry:
            size, changed = entry["source"]
            known = Done(str(entry["settings"]), (size, changed), tuple(entry["files"]), dict(entry["shares"]))
            self.done[str(entry["done"])] = known
        else:
            self._marks.setdefault(str(entry["name"]), set()).add((int(entry["size"]), str(entry["digest"])))

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
        self._append({"name": name, "size": mark[0], "digest": mark[1], "image": str(image)})
        self._marks.setdefault(name, set()).add(mark)

    def finish(self, target: Path, done: Done) -> None:
        """Record that all results of an input are written; called after the last one."""
        name = _name(target, self.folder)
        self._append({"done": name, **asdict(done)})
        self.done[name] = done

    def is_done(self, target: Path, source: Path, settings: str) -> bool:
        """Whether all results of an input are there, made from the same file with the same settings."""
        known = self.done.get(_name(target, self.folder))
        if known is None or known.settings != settings or not source.is_file():
            return False
        return known.source == Done.source_of(source) and all((self.folder / name).exists() for name in known.files)

    def _append(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(entry) + "\n")


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
