"""Three hundred damaged recipes: each is read and planned, or refused in one clear message, within seconds."""

import contextlib
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainbridge.build.recipe import load_recipe, parse_recipe
from domainbridge.cli.run import plan
from domainbridge.errors import InputError
from domainbridge.printable import printable
from mutations import mutated_bytes, mutated_trees
from tiny_domain import RECIPE, write_domain

pytestmark = pytest.mark.slow

SECONDS = 10.0
INTERNALS = (
    "function-",
    "pydantic",
    "Traceback",
    "NoneType",
    "object at 0x",
    "Config'",
    "input should",
    "Input should",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe with a value in every section, over data that exist."""
    root = tmp_path_factory.mktemp("mutations")
    write_domain(root / "source", 3, 1, foggy=False, labeled=True)
    write_domain(root / "target", 3, 2, foggy=True, labeled=False)
    write_domain(root / "target-val", 2, 3, foggy=True, labeled=True)
    recipe = copy.deepcopy(RECIPE)
    recipe["sources"][0] |= {
        "label_map": {0: "ground", 1: "box", 2: "sky"},
        "exclude_files": ["000"],
        "resize": {"width": 48, "height": 40},
        "scale": [0, 255],
    }
    return recipe | {
        "data_root": str(root),
        "rounds": 1,
        "method": "ddb",
        "evaluation": {"exclude_classes": ["sky"], "subsets": {"two": ["ground", "box"]}, "mode": "slide"},
        "stages": {"r1-cut": {"steps": 3}},
        "sampling": {"rare_classes": True},
        "self_training": {"confidence": 0.9},
        "distillation": {"mode": "soft"},
        "cache": {"folder": "cache"},
    }


def outcome(action: Callable[[], object]) -> str:
    """'done', or the message; fails on any other exception and on more than the time allowed."""
    begin = time.perf_counter()
    try:
        action()
        message = "done"
    except InputError as error:
        message = str(error)
    seconds = time.perf_counter() - begin
    assert seconds < SECONDS, f"{seconds:.1f} s: {message[:500]}"
    assert not any(word in message for word in INTERNALS), message[:2000]
    assert len(max(message.splitlines(), key=len)) < 1500, message[:2000]
    printable(message).encode()
    return message


def planned(path: Path, folder: Path) -> None:
    """What ``domainbridge plan`` does; tables go to stdout, which pytest keeps."""
    plan(str(path), [], folder)


def test_damaged_values(tree: dict[str, Any], tmp_path: Path) -> None:
    messages = []
    for number, variant in enumerate(mutated_trees(tree, 150, seed=1)):
        messages.append(outcome(lambda variant=variant: parse_recipe(variant)))  # type: ignore[misc]
        path = tmp_path / f"{number}.yaml"
        with contextlib.suppress(yaml.YAMLError, RecursionError, UnicodeEncodeError):
            path.write_text(yaml.safe_dump(variant, allow_unicode=True), encoding="utf-8")
            outcome(lambda path=path: planned(path, tmp_path / "run"))  # type: ignore[misc]
    assert sum(message != "done" for message in messages) > 75


def test_damaged_text(tree: dict[str, Any], tmp_path: Path) -> None:
    text = yaml.safe_dump(tree).encode()
    path = tmp_path / "damaged.yaml"
    messages = []
    for variant in mutated_bytes(text, 150, seed=2):
        path.write_bytes(variant)
        messages.append(outcome(lambda: planned(path, tmp_path / "run")))
    assert sum(message != "done" for message in messages) > 50


def test_damaged_words_of_the_command_line(tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(tree))
    for word in ("training.steps=500", "sources.0.label_map={0: ground}", "label_space.classes=[a, b]"):
        for variant in mutated_bytes(word.encode(), 100, seed=3):
            typed = variant.decode("utf-8", "surrogateescape")
            outcome(lambda typed=typed: load_recipe(str(path), [typed]))  # type: ignore[misc]
