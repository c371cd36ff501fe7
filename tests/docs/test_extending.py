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

import numpy as np
import pytest
import yaml
from PIL import Image

from tiny_domain import CLASSES, RECIPE, write_domain

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/extending.md").read_text()
BLOCKS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``PYTHONPATH`` with the package and its metadata, as ``pip install`` would leave them."""
    site = tmp_path_factory.mktemp("site")
    package, metadata = site / "our_parts", site / "our_parts-1.0.dist-info"
    package.mkdir()
    metadata.mkdir()
    (package / "__init__.py").touch()
    for name, code in BLOCKS:
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


def test_every_part_is_one_file_of_the_length_that_the_table_says() -> None:
    section = (PROJECT / "ARCHITECTURE.md").read_text().partition("## How many files to touch")[2]
    rows = re.findall(r"^\| .* \| (\d+) \| (\d+) \| \[docs/extending\.md\]", section, re.MULTILINE)
    assert sorted(rows) == sorted(("1", str(code.count("\n"))) for _, code in BLOCKS)
    assert len(rows) == 7


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


def test_a_term_and_an_annotation_format_of_an_outside_package(site: Path, tmp_path: Path) -> None:
    write_domain(tmp_path / "source", 4, 1, foggy=False, labeled=True)
    write_domain(tmp_path / "target", 4, 2, foggy=True, labeled=False)
    masks = [np.array(Image.open(path)) for path in sorted((tmp_path / "source/labels").iterdir())]
    (tmp_path / "source/boxes").mkdir()
    for number, mask in enumerate(masks):  # every class of the scene is a rectangle, the box above the others
        corners = [(name, np.argwhere(mask == CLASSES.index(name))) for name in ("ground", "sky", "box")]
        lines = [f"{name},{x.min()},{y.min()},{x.max()},{y.max()}" for name, (y, x) in ((n, c.T) for n, c in corners)]
        (tmp_path / f"source/boxes/{number:03}.csv").write_text("\n".join(lines))
    tree: dict[str, Any] = {key: RECIPE[key] for key in ("name", "label_space", "model", "crop", "training", "runtime")}
    tree |= {
        "method": "mirrored",
        "data_root": str(tmp_path),
        "sources": [{**RECIPE["sources"][0], "labels": "boxes"}],
        "targets": [{"name": "fog", "root": "target", "images": "images"}],
        "sampling": {"rare_classes": True},
        "evaluation": {"label_free": {"images": 0}},
        "source_only": False,
        "adabn": False,
        "warm_start": False,
    }
    tree["training"] = {**tree["training"], "log_every": 1}
    (tmp_path / "outside.yaml").write_text(yaml.safe_dump(tree))
    ran = domainbridge(site, "run", tmp_path / "outside.yaml", "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    steps = [json.loads(line) for line in (tmp_path / "run/self-training/metrics.jsonl").read_text().splitlines()]
    assert all(set(step["losses"]) == {"source", "bridged", "mirrored"} for step in steps)
    counts = np.load(tmp_path / "run/class-counts.npz")["counts"]
    assert counts.tolist() == [np.bincount(mask.ravel(), minlength=3).tolist() for mask in masks]


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
