"""Fixtures over the generated domain pair."""

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["DOMAINBRIDGE_CACHE"] = str(Path(tempfile.mkdtemp(prefix="domainbridge-tests-")))

import pytest
import torch

from tiny_domain import RECIPE, write_domain


def pytest_configure() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


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
