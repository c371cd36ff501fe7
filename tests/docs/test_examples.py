"""Every script of examples/ runs, in small."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_no_script_is_forgotten() -> None:
    tested = set(re.findall(r'run\("(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_adapt_from_python(tmp_path: Path) -> None:
    shown = run("adapt_from_python.py", 1, tmp_path / "run")
    assert re.search(r"^self-training on fog: mIoU [\d.]+ %$", shown, re.MULTILINE)
    assert (tmp_path / "run/model/model.safetensors").exists()
    assert len(list((tmp_path / "run/predictions").glob("*_overlay.jpg"))) == 2


def test_own_training_loop_learns() -> None:
    losses = [float(loss) for loss in re.findall(r"source ([\d.]+)", run("own_training_loop.py", 12))]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
