"""Room on the disk: what a run will write, against what it wrote; what is said before the first step."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.errors import StorageError
from domainbridge.files import write_file
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.disk_space import disk_notes, disk_text, written_bytes
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.run import run_recipe
from domainbridge.tools.stage_loads import stage_loads
from interrupted import run_until_killed

Usage = namedtuple("Usage", "total used free")


class Messages(NullCallback):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def needed(tree: dict[str, Any], folder: Path) -> int:
    recipe = parse_recipe(tree)
    nodes = stage_graph(recipe, open_data(recipe))
    return written_bytes(plan(nodes, folder), stage_loads(recipe, nodes), folder)


def test_what_is_needed_is_what_is_written(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    tree = {**recipe_tree, "rounds": 1, "adabn": True}
    tree["training"] = {**tree["training"], "steps": 4, "warmup_steps": 1, "checkpoint_every": 2, "log_every": 1}
    whole = needed(tree, tmp_path / "run")
    run_until_killed(tree, tmp_path / "run", "r1-cut", 3)
    checkpoint = (tmp_path / "run" / "r1-cut" / "state.pt").stat().st_size
    rest = needed(tree, tmp_path / "run")
    run_recipe(parse_recipe(tree), tmp_path / "run")
    every = sorted((tmp_path / "run").rglob("model.safetensors"))
    models = [path.stat().st_size for path in every]
    assert len(models) == 6, "source-only, adabn, r1-cut, r1-class, r1-distill and the run's own"
    assert whole == pytest.approx(sum(models) + 2 * checkpoint, rel=0.15)
    left = sum(models) - sum(models[:2])
    assert rest == pytest.approx(left + checkpoint, rel=0.15), "the checkpoint that is there is counted once"
    assert needed(tree, tmp_path / "run") == 0


def test_a_full_disk_is_announced_before_the_first_step(
    recipe_tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {**recipe_tree, "rounds": 1}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 50_000, 50_000))
    messages = Messages()
    run_recipe(parse_recipe(tree), tmp_path / "run", [messages], until="source-only")
    (note,) = [text for text in messages.texts if "free on this disk" in text]
    assert str(tmp_path / "run") in note
    assert "0 MB are free" in note
    assert "make room" in note


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(temporary: Path) -> None:
        raise RuntimeError("unexpected pos 4936576 vs 4936472")

    with pytest.raises(StorageError, match=r"cannot be written \(unexpected pos"):
        write_file(tmp_path / "state.pt", failing)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 4096, 4096))
    with pytest.raises(StorageError, match=r"state\.pt: cannot be written \(no space left on the disk\)"):
        write_file(tmp_path / "state.pt", failing)


def test_room_is_paths_for_where_the_folder_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: paths.append(path) or Usage(10**10, 0, 5 * 10**9))
    folder = tmp_path / "not" / "there"
    assert disk_notes(5 * 10**9, folder) == []
    (note,) = disk_notes(5 * 10**9 + 1, folder)
    assert "5.0 GB are free" in note
    assert disk_text(12_000_000, folder).startswith(f"disk: 12 MB more in {folder} at most")
    assert set(paths) == {tmp_path}
