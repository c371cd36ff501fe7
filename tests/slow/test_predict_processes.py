"""`predict` by two processes of torchrun (gloo): each input once, the tables of all, one report; 25 CPU seconds."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import domainbridge
from domainbridge.data.label_spaces import label_space
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter

pytestmark = pytest.mark.slow

NAMES = [f"image-{number}" for number in range(7)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    spec, space = (
        ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2))),
        label_space("s", "abc"),
    )
    torch.manual_seed(0)
    save_model(folder, build_segmenter(spec), ModelConfig(spec, space.name, space.classes, space.colors, None))
    return folder


def by_two(model: Path, images: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "domainbridge", "predict", model, images, "--out", out, "--shares", "--polygons", "coco", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*torchrun, *map(str, command)], capture_output=True, text=True, env=environment, timeout=600, check=False
    )


def test_two_processes_share_a_folder(model: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
    (images / "broken.png").write_bytes(b"no image")

    result = by_two(model, images, tmp_path / "two")
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("7 images were segmented, 1 not") == 1, result.stderr
    assert "broken.png" in result.stderr
    records = sorted((tmp_path / "two").glob(".domainbridge-predict*.jsonl"))
    written = [
        {json.loads(line)["name"] for line in path.read_text().splitlines() if '"name"' in line} for path in records
    ]
    assert len(written) == 2
    assert all(sum(name.endswith(".png") for name in some) >= 3 for some in written), "both had their share"
    assert not written[0] & written[1], "no input was done twice"

    (images / "broken.png").unlink()
    domainbridge.predict(model, images, tmp_path / "one", shares=True, polygons=["coco"])
    for name in (*(f"{each}.png" for each in NAMES), "coco.json", "class-shares.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name

    (tmp_path / "two/image-3.png").unlink()
    before = (tmp_path / "two/image-0.png").stat().st_mtime_ns
    result = by_two(model, images, tmp_path / "two", "--resume")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("6 of 7 inputs have their results already") == 1
    assert "1 images segmented" in result.stderr
    assert (tmp_path / "two/image-3.png").read_bytes() == (tmp_path / "one/image-3.png").read_bytes()
    assert (tmp_path / "two/image-0.png").stat().st_mtime_ns == before
    with (tmp_path / "two/class-shares.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(images / f"{name}.png") for name in NAMES]
