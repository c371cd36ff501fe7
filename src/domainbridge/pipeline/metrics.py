"""``metrics.jsonl``: a line per progress report of a stage."""

import json
from pathlib import Path
from typing import Any

from domainbridge.files import write_text
from domainbridge.training.loop import Progress

__all__ = ["append_metrics", "keep_metrics", "parsed_line"]


def append_metrics(path: Path, progress: Progress) -> None:
    """Add a report."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(_metrics(progress)) + "\n")


def keep_metrics(path: Path, steps: int) -> None:
    """Drop the lines of steps that will be taken again."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if (entry := parsed_line(line)) is not None and entry["step"] <= steps]
    write_text(path, "".join(line + "\n" for line in kept))


def parsed_line(line: str) -> dict[str, Any] | None:
    """One line of ``metrics.jsonl``; None for one that a crash cut short."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _metrics(progress: Progress) -> dict[str, object]:
    return {
        "step": progress.step,
        "losses": progress.losses,
        "lr": progress.learning_rate,
        "seconds": progress.seconds,
    }
