"""A run on a terminal: one bar that counts every phase, with the time left; lines where no terminal is."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from domainbridge.build.recipe import parse_recipe
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.callbacks.console import ConsoleCallback
from domainbridge.run.run import run_recipe


class EveryUnit(NullCallback):
    """Draws the bar after every step, batch and image, where the clock alone would draw four times a second."""

    def __init__(self, drawn: ConsoleCallback) -> None:
        self.drawn = drawn

    def advance(self, node: Any, phase: Any, done: int) -> None:
        self.drawn.bar.refresh()


def shown(tree: dict[str, Any], folder: Any, *, terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=200, legacy_windows=False)
    bar = ConsoleCallback(console)
    assert run_recipe(parse_recipe(tree), folder, [bar, EveryUnit(bar)] if terminal else [bar])
    return screen.getvalue()


@pytest.fixture
def tree(recipe_tree: dict) -> dict[str, Any]:
    recipe_tree |= {"rounds": 1, "stages": {"source-only": {"steps": 30}}}
    return recipe_tree


def test_a_terminal_shows_one_bar_with_the_time_left(tree: dict[str, Any], tmp_path: Any) -> None:
    text = shown(tree, tmp_path / "run", terminal=True)
    drawn = re.findall(r"([\w-]+): (\w+), (\w+) (\d+)/(\d+)", text)
    assert {"training", "scoring"} <= {phase for _, phase, _, _, _ in drawn}
    assert ("source-only", "training", "step") in {part[:3] for part in drawn}
    steps = {int(part[3]) for part in drawn if part[:2] == ("source-only", "training")}
    assert steps >= set(range(1, 30)), "the count moves between reports"
    assert re.search(r"\d:\d\d:\d\d left", text)
    shares = [float(share) for share in re.findall(r"([\d.]+)%", text)]
    assert max(shares) > 50
    assert "step 30  " not in text, "no line per report"


def test_no_terminal_gets_lines_and_no_bar(tree: dict[str, Any], tmp_path: Any) -> None:
    text = shown(tree, tmp_path / "run", terminal=False)
    lines = text.splitlines()
    assert "source-only: running (not done yet)" in lines
    assert any(re.fullmatch(r"source-only: step 30  source [\d.]+  [\d.]+ s/step.*", line) for line in lines)
    assert any(line.startswith("r1-distill: fog mIoU") for line in lines)
    assert "" not in lines
    assert " left" not in text
    assert "\x1b" not in text


def test_nothing_to_do_draws_nothing(tree: dict[str, Any], tmp_path: Any) -> None:
    shown(tree, tmp_path / "run", terminal=False)
    text = shown(tree, tmp_path / "run", terminal=True)
    assert "left" not in text
    assert text.count("done already") == 5
