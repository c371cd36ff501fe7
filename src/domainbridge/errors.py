"""What can go wrong, as a tree.

    ValueError
      DomainbridgeError            a user can act on the message; the command line prints it and exits
        InputError                 exit code 2: what was given is wrong
          RecipeError              a recipe's keys or values
          DataError                folders, images, labels
          ModelError               a model folder, a checkpoint, weights
          RunFolderError           a run folder that does not fit the recipe
        TrainingError              exit code 1: failed while running, e.g. a non-finite loss
        StorageError               exit code 1: a file cannot be written, e.g. on a full disk

Anything else that escapes is a defect of ours.
"""

from collections.abc import Sequence

__all__ = [
    "DataError",
    "DomainbridgeError",
    "InputError",
    "ModelError",
    "RecipeError",
    "RunFolderError",
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


class ModelError(InputError):
    """A model folder, a checkpoint or initial weights cannot be used."""


class RunFolderError(InputError):
    """The run folder belongs to something else or is in use."""


class TrainingError(DomainbridgeError):
    """Training cannot go on; the last good checkpoint is kept."""


class StorageError(DomainbridgeError):
    """A file cannot be written; what was there before is kept."""


def problem_list(title: str, problems: Sequence[str], limit: int = 20) -> str:
    """One message that lists every problem, a line each; the tail beyond ``limit`` is counted, not dropped silently."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join([title, *lines])
