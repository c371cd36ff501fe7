"""Damaged image, label and annotation files: each is used, or refused in one message that names it, within seconds."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import annotation_trees
from annotation_trees import STEMS, TREES, ids, photos
from domainbridge.build.datasets import list_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.errors import DomainbridgeError
from domainbridge.tools.init.write import look
from domainbridge.tools.survey import survey_data
from mutations import mutated_bytes

pytestmark = pytest.mark.slow

SECONDS = 10.0
ANNOTATIONS = ["labelme", "coco", "coco-panoptic", "yolo", "cvat-xml", "supervisely", "label-studio", "cvat-masks"]
IMAGES = ["png", "jpg", "tif", "bmp", "webp", "16-bit png", "16-bit tif", "palette png", "gif label", "npy label"]
PER_KIND = 12


def survey(root: Path, labels: str) -> None:
    """What ``data check`` does; only our errors may come."""
    space = {"name": "mine", "classes": ["background", "crop", "weed"]}
    images = next(path.parent for path in sorted(root.rglob("*a_1.*")) if path.suffix in (".jpg", ".png", ".tif"))
    source = {"name": "s", "root": str(root), "images": str(images), "labels": labels}
    target = {"name": "t", "root": str(root), "images": str(images)}
    tree = {"name": "x", "label_space": space, "crop": {"width": 16, "height": 16}}
    began = time.perf_counter()
    try:
        recipe = parse_recipe({**tree, "sources": [source], "targets": [target]})
        data, _ = list_data(recipe)
        survey_data(recipe, data, lambda text: None)
    except DomainbridgeError:
        pass
    assert time.perf_counter() - began < SECONDS


def write_image(kind: str, root: Path) -> Path:
    """A folder of images and masks; the file that is damaged."""
    photos(root / "images")
    (root / "masks").mkdir()
    for stem in STEMS:
        Image.fromarray(ids()).save(root / f"masks/{stem}.png")
    image = np.random.default_rng(0).integers(0, 256, (annotation_trees.HEIGHT, annotation_trees.WIDTH, 3), np.uint8)
    if kind.endswith("label"):
        path = root / f"masks/a_1.{kind.split()[0]}"
        (root / "masks/a_1.png").unlink()
        if path.suffix == ".npy":
            np.save(path, ids())
        else:
            Image.fromarray(ids()).save(path)
        return path
    (root / "images/a_1.jpg").unlink()
    path = root / f"images/a_1.{kind.split()[-1]}"
    if kind.startswith("16-bit"):
        Image.fromarray(image[..., 0].astype(np.uint16) * 200).save(path)
    elif kind.startswith("palette"):
        Image.fromarray(image).quantize(16).save(path)
    else:
        Image.fromarray(image).save(path)
    return path


@pytest.mark.parametrize("kind", IMAGES)
def test_damaged_images_and_labels(kind: str, tmp_path: Path) -> None:
    path = write_image(kind, tmp_path / "s")
    for content in mutated_bytes(path.read_bytes(), PER_KIND, seed=len(kind)):
        path.write_bytes(content)
        survey(tmp_path / "s", "masks")


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_damaged_annotations(name: str, tmp_path: Path) -> None:
    TREES[name](tmp_path / "whole")
    files = [
        path.relative_to(tmp_path / "whole")
        for path in sorted((tmp_path / "whole").rglob("*"))
        if path.suffix in (".json", ".xml", ".txt", ".yaml") or (path.suffix == ".png" and "img" not in path.name)
    ]
    for number in range(PER_KIND):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", root)
        damaged = root / files[number % len(files)]
        damaged.write_bytes(next(iter(mutated_bytes(damaged.read_bytes(), 1, seed=number))))
        began = time.perf_counter()
        try:
            inspected = look(root, root, None).source
        except DomainbridgeError:
            pass
        else:
            survey(root, inspected.annotations or inspected.folders.labels or ".")
        assert time.perf_counter() - began < 2 * SECONDS
