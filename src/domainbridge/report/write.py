"""Writing a report, and the callback that does so after every stage of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbridge.errors import RunFolderError, problem_list
from domainbridge.files import write_text
from domainbridge.report.page import GENERATOR, render
from domainbridge.report.run_facts import read_run
from domainbridge.run.callbacks.base import NullCallback

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results

__all__ = ["REPORT", "ReportCallback", "write_report"]

REPORT = "report.html"
_HEAD = 2000
"""Characters of a file in which the mark of a report stands."""


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write one HTML file about one run folder or several; the path of the file.

    Args:
        folders: run folders, finished or not, also of earlier versions.
        out: path to the file; default: ``report.html`` in the folder, of several runs in the current folder.

    Raises:
        RunFolderError: a folder is no run folder, or another file is in the way; nothing was written.
        StorageError: the file cannot be written.
    """
    path = out or (folders[0] / REPORT if len(folders) == 1 else Path(REPORT))
    runs, problems = [], []
    for folder in dict.fromkeys(folders):
        try:
            runs.append(read_run(folder))
        except RunFolderError as error:
            problems.append(str(error))
    if not runs and not problems:
        raise RunFolderError("report: give at least one run folder, such as runs/NAME")
    if problems:
        raise RunFolderError(problems[0] if len(problems) == 1 else problem_list("report: no run folders", problems))
    _check_place(path)
    write_text(path, render(runs))
    return path


def _check_place(path: Path) -> None:
    """Refuse to replace what is no report."""
    if path.is_dir():
        raise RunFolderError(f"{path}: expected a file for the report, found a folder; give --out FILE")
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        if f'content="{GENERATOR}"' not in file.read(_HEAD):
            raise RunFolderError(f"{path}: exists, and is no report of domainbridge; give another --out FILE")


class ReportCallback(NullCallback):
    """Writes ``report.html`` into the run folder whenever a stage was carried out or scored."""

    def __init__(self) -> None:
        self.folder = Path()
        self.written = False

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Remember the folder."""
        self.folder = folder

    def stage_ends(self, node: "Node", results: "Results") -> None:
        """Write the report with the stage."""
        write_report([self.folder])
        self.written = True

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """Write a report where this start had nothing to do and none is there."""
        if not self.written and results.stages and not (self.folder / REPORT).exists():
            write_report([self.folder])
