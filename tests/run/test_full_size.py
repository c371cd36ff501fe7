"""The published recipe at its true size: ResNet-101, 512x512 crops of 1914x1052 and 2048x1024 images.

Slow: an hour on one core, 13 GiB of memory.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.build.recipe import load_recipe
from domainbridge.run.callbacks.jsonl import JSONLCallback
from domainbridge.run.run import run_recipe

STEPS = 3
IMAGES = 2


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, compress_level=1)


@pytest.mark.slow
def test_three_steps_of_every_stage(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    city = tmp_path / "cityscapes"
    for number in range(IMAGES):
        write(tmp_path / f"gta/images/{number:05}.png", generator.integers(0, 256, (1052, 1914, 3), np.uint8))
        ids = generator.choice([7, 8, 11, 21, 23, 26], (66, 120)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        write(tmp_path / f"gta/labels/{number:05}.png", ids[:1052, :1914])
        for split in ("train", "val"):
            stem = f"ulm_{number:06}_000019"
            image = generator.integers(0, 256, (1024, 2048, 3), np.uint8)
            write(city / f"leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png", image)
            write(city / f"gtFine/{split}/ulm/{stem}_gtFine_labelIds.png", np.full((1024, 2048), 7, np.uint8))
    arguments = [f"data_root={tmp_path}", f"training.steps={STEPS}", "training.warmup_steps=1", "training.log_every=1"]
    recipe = load_recipe("gta-to-cityscapes", [*arguments, "model.weights=none", "prototypes.passes=1"])
    assert run_recipe(recipe, tmp_path / "run", [JSONLCallback()])
    results = json.loads((tmp_path / "run/results.json").read_text())
    trained = {name: entry for name, entry in results["stages"].items() if "prototypes" not in name}
    assert len(trained) == 7
    for name, entry in trained.items():
        assert entry["steps"] == STEPS
        assert entry["targets"]["cityscapes"]["images"] == IMAGES
        lines = (tmp_path / "run" / name / "metrics.jsonl").read_text().splitlines()
        print(name, [round(json.loads(line)["seconds"], 1) for line in lines], "seconds a step")
        assert all(np.isfinite(list(json.loads(line)["losses"].values())).all() for line in lines)
