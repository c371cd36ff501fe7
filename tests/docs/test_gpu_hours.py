"""The table of docs/gpus.md is the one that its script prints."""

import runpy
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_the_table_is_current() -> None:
    printed = runpy.run_path(str(PROJECT / "scripts/gpu_hours.py"))["table"]()
    assert printed in (PROJECT / "docs/gpus.md").read_text()
