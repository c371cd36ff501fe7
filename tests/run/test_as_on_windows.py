"""No module needs what only Linux has; loader processes start as on Windows and macOS (spawn)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SCRIPT = Path(__file__).with_name("as_on_windows.py")


def test_a_stage_runs_without_what_windows_lacks(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    """Import of every module, the checks, the lock, a loader process by spawn, a checkpoint, the scores, the report."""
    recipe_tree["runtime"]["num_workers"] = 1
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(recipe_tree), encoding="utf-8")
    command = [sys.executable, SCRIPT, "run", recipe, "--until", "source-only", "--out", tmp_path / "run"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "run/results.json").read_text(encoding="utf-8"))
    assert scores["stages"]["source-only"]["steps"] == 4
    assert (tmp_path / "run/report.html").exists()
    assert not list((tmp_path / "run").glob(".lock*")), "the lock without flock is a file that is gone at the end"


def test_the_script_takes_away_what_it_says() -> None:
    """The test above could not fail if the script blocked nothing."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import as_on_windows as script; script.block()\n"
        "for line in ('import fcntl', 'import os; os.fork', 'import signal; signal.SIGKILL', 'import resource', "
        "'import os; os.stat(\"/dev/shm\")'):\n"
        "    try:\n"
        "        exec(line, {'__name__': 'domainbridge.made_up'})\n"
        "        print('there:', line)\n"
        "    except (ImportError, AttributeError, FileNotFoundError):\n"
        "        print('gone')\n"
    )
    command = [sys.executable, "-c", code, str(SCRIPT.parent)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:-1] == ["gone"] * 5
