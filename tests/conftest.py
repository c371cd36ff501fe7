"""Fixtures over the generated domain pair."""

import copy
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["DOMAINBRIDGE_CACHE"] = str(Path(tempfile.mkdtemp(prefix="domainbridge-tests-")))

import pytest
import torch
from hypothesis import HealthCheck, settings

from tiny_domain import RECIPE, write_domain


def pytest_configure() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
    no_time = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("random", no_time)
    settings.register_profile("same examples", no_time, derandomize=True)  # or a commit fails for another one's fault
    settings.load_profile("same examples")
    os.fsync = lambda descriptor: None  # files of tests need not outlive a power failure


def pytest_collection_finish() -> None:
    """Leave modules out of the collections that end every stage: their objects are nearly all of that work."""
    gc.collect()
    gc.freeze()


_FIRST_PREVIEW = Path(os.environ["DOMAINBRIDGE_CACHE"]) / "preview.png"


@pytest.fixture(autouse=True)
def one_preview(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture that every new run draws is drawn once in a process and copied then, except with ``previews``."""
    engine = sys.modules.get("domainbridge.run.run")
    if engine is None or request.node.get_closest_marker("previews"):
        return
    draw = engine.draw_preview

    def draw_or_copy(recipe: Any, data: Any, path: Path) -> list[str]:
        if _FIRST_PREVIEW.exists():
            shutil.copy(_FIRST_PREVIEW, path)
            return []
        problems: list[str] = draw(recipe, data, path)
        shutil.copy(path, _FIRST_PREVIEW)
        return problems

    monkeypatch.setattr(engine, "draw_preview", draw_or_copy)


@pytest.fixture(scope="session")
def generated_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """source/ (labeled), target/ (images only), target-val/ (labeled)."""
    root = tmp_path_factory.mktemp("data")
    write_domain(root / "source", 12, 1, foggy=False, labeled=True)
    write_domain(root / "target", 10, 2, foggy=True, labeled=False)
    write_domain(root / "target-val", 4, 3, foggy=True, labeled=True)
    return root


@pytest.fixture
def recipe_tree(generated_data: Path) -> dict[str, Any]:
    """A complete recipe as plain values, free to change."""
    tree = copy.deepcopy(RECIPE)
    tree["data_root"] = str(generated_data)
    return tree
