"""What can go wrong, as a tree.

    ValueError
      DomainbridgeError            a user can act on the message; the command line prints it and exits
        InputError                 exit code 2: what was given is wrong
          RecipeError              a recipe's keys or values
          DataError                folders, images, labels
            FileError              one file; many with one cause are reported together
            SomeFilesError         exit code 1: some of many files cannot be used, and the others are done
          ModelError               a model folder, a checkpoint, weights
          RunFolderError           a run folder that does not fit the recipe
        TrainingError              exit code 1: failed while running, e.g. a non-finite loss
        ExportError                exit code 1: an exported file that does not do what the model does
        StorageError               exit code 1: a file cannot be written, e.g. on a full disk
        HubError                   exit code 1: the Hugging Face hub cannot be reached or refuses

Anything else that escapes is a defect of ours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "DataError",
    "DomainbridgeError",
    "ExportError",
    "FileError",
    "HubError",
    "InputError",
    "ModelError",
    "RecipeError",
    "RunFolderError",
    "SomeFilesError",
    "StorageError",
    "TrainingError",
    "problem_list",
]


class DomainbridgeError(ValueError):
    """A failure that a user can act on."""

    exit_code = 1


class InputError(DomainbridgeError):
    """What the user gave is wrong; nothing has been computed or changed."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe cannot be read, or its keys or values are wrong."""


class DataError(InputError):
    """A folder, an image or a label is missing, unreadable or not what the recipe says."""


class FileError(DataError):
    """One file of a domain cannot be used.

    Attributes:
        path: of the file.
        text: what was found and what to do, without the path.
        group: the cause, equal for all files that are reported in one line; default: ``text``.
        values: found values -> number of pixels, where values are the cause.
        limits: smallest and largest value, where the range of the values is the cause.
    """

    def __init__(
        self,
        path: Path,
        text: str,
        group: str | None = None,
        values: Mapping[str, int] | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(f"{path}: {text}")
        self.path, self.text = path, text
        self.group = group or text
        self.values = dict(values or {})
        self.limits = limits

    def __reduce__(self) -> tuple[Any, ...]:
        return FileError, (self.path, self.text, self.group, self.values, self.limits)


class SomeFilesError(DataError):
    """Some of many files cannot be used; the work on all others is done."""

    exit_code = 1


class ModelError(InputError):
    """A model folder, a checkpoint or initial weights cannot be used."""


class RunFolderError(InputError):
    """The run folder belongs to something else or is in use."""


class TrainingError(DomainbridgeError):
    """Training cannot go on; the last good checkpoint is kept."""


class ExportError(DomainbridgeError):
    """An exported file failed its check; no file is written."""


class StorageError(DomainbridgeError):
    """A file cannot be written; what was there before is kept."""


class HubError(DomainbridgeError):
    """The Hugging Face hub cannot be reached or refuses, or its package is not installed."""


def problem_list(title: str, problems: Sequence[str], limit: int = 20) -> str:
    """One message that lists every problem, a line each; the tail beyond ``limit`` is counted, not dropped silently."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join([title, *lines])
