"""The code of docs/extending.md, as an outside package that entry points name, in a run of the command."""

import csv
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny_domain import RECIPE, write_domain

PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` with the package and its metadata, as ``pip install`` would leave them."""
    site = tmp_path_factory.mktemp("site")
    package, metadata = site / "our_parts", site / "our_parts-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    for name, code in blocks:
        (package / name).write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: our-parts\nVersion: 1.0\n")
    (toml,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    groups = tomllib.loads(toml)["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in parts.items()) for group, parts in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return site


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_domain(folder / "source", 4, 1, foggy=False, labeled=True)
    write_domain(folder / "target", 4, 2, foggy=True, labeled=False)
    for kind, new in (("images", "rgb"), ("labels", "ids")):
        (folder / "frames" / new).mkdir(parents=True)
        (folder / "source" / kind).rename(folder / "frames" / new / "train")
    tree: dict[str, Any] = {key: RECIPE[key] for key in ("name", "seed", "crop", "training")}
    tree |= {
        "method": "entropy",
        "entropy_weight": 0.01,
        "source_only": True,
        "adabn": True,
        "data_root": str(folder),
        "label_space": "cityscapes19",
        "sources": [{"name": "ours", "dataset": "frames", "root": "frames", "split": "train"}],
        "targets": [{"name": "fog", "root": "target", "images": "images"}],
        "model": {"backbone": "plain8", "weights": "none", "output_stride": 16, "head": {"kind": "projected"}},
        "runtime": {**RECIPE["runtime"], "callbacks": ["jsonl", "csv"]},
    }
    path = folder / "outside.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def domainbridge(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "domainbridge", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_parts_of_an_outside_package_make_a_run(site: Path, recipe: Path, tmp_path: Path) -> None:
    ran = domainbridge(site, "run", recipe, "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert (list(results["stages"]), results["final"]) == (["source-only", "adabn", "entropy"], "entropy")
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert "plain8" in json.dumps(config)
    assert "projected" in json.dumps(config)
    with (tmp_path / "run/losses.csv").open() as file:
        assert {(stage, loss) for stage, _, loss, _ in csv.reader(file)} == {
            ("source-only", "source"),
            ("entropy", "source"),
            ("entropy", "entropy"),
        }
    image = recipe.parent / "target/images/000.png"
    assert domainbridge(site, "predict", tmp_path / "run/model", image, "--out", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/000.png").exists()

    again = domainbridge(site, "plan", recipe, "entropy_weight=0.02", "--out", tmp_path / "run")
    assert "entropy_weight" in again.stdout + again.stderr  # the reason why the stage would run again


def test_without_the_package_the_unknown_name_is_told(recipe: Path, tmp_path: Path) -> None:
    ran = domainbridge(tmp_path, "plan", recipe)
    assert ran.returncode == 2
    assert "'entropy' is unknown, known are" in ran.stderr


def test_a_broken_package_is_named_when_its_part_is_wanted(site: Path, recipe: Path, tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[domainbridge.methods]\nentropy = no_such_module:Entropy\n")
    ran = domainbridge(tmp_path, "plan", recipe)
    assert ran.returncode == 2
    assert "cannot be imported" in ran.stderr
    assert "no_such_module" in ran.stderr
