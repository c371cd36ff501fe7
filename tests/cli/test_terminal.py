"""Names of files with escape codes, markup, or bytes that are no UTF-8: every command works and shows them escaped."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainbridge.printable import printable
from tiny_domain import RECIPE, write_domain

NAMES = (b"b\xff\xfe.png", b"e\x1b[31mred\x07.png", b"[bold]m.png")


def call(*arguments: str | bytes, cwd: Path) -> tuple[int, str]:
    command: list[Any] = [sys.executable, "-m", "domainbridge", *arguments]
    result = subprocess.run(command, capture_output=True, cwd=cwd, timeout=240, check=False)
    output = result.stdout + result.stderr
    assert b"\x1b" not in output
    assert b"\x07" not in output
    assert b"Traceback" not in output
    return result.returncode, output.decode("utf-8")


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """A recipe in a folder of data whose files have odd names."""
    write_domain(tmp_path / "source", 2, 1, foggy=False, labeled=True)
    write_domain(tmp_path / "target", 2, 2, foggy=True, labeled=False)
    write_domain(tmp_path / "target-val", 2, 3, foggy=True, labeled=True)
    for folder in ("source/images", "source/labels", "target/images"):
        for name in NAMES:
            shutil.copy(tmp_path / folder / "000.png", os.fsencode(tmp_path / folder) + b"/" + name)
    tree = {**RECIPE, "data_root": str(tmp_path), "rounds": 1, "source_only": False}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def test_commands_work_with_odd_names(odd_names: Path) -> None:
    assert call("run", "r.yaml", cwd=odd_names)[0] == 0
    code, output = call("plan", "r.yaml", cwd=odd_names)
    assert code == 0
    assert output.count("done") >= 4
    assert call("evaluate", "runs/tiny/model", "r.yaml", cwd=odd_names)[0] == 0


def test_messages_show_odd_names_escaped(odd_names: Path) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(odd_names / "source/images") + b"/" + name)).write_bytes(b"no image")
    code, output = call("data", "check", "r.yaml", cwd=odd_names)
    assert code == 2
    for shown in (r"b\xff\xfe.png", r"e\x1b[31mred\x07.png", "[bold]m.png"):
        assert shown in output
    code, output = call("plan", b"\xff\x1b.yaml", cwd=odd_names)
    assert code == 2
    assert r"\xff\x1b.yaml: no such file" in output


def test_printable_keeps_text_and_lines() -> None:
    assert printable("Wälder 森\n\t[b]") == "Wälder 森\n\t[b]"
    assert printable("\x1b[2J\r\x9b\u202e\udcff\ud800") == r"\x1b[2J\x0d\x9b\u202e\xff\ud800"
