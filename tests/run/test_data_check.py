"""`data check`: everything that would hurt later, found in one pass."""

import shutil
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml
from PIL import Image

from command_line import call
from tiny_domain import RECIPE, write_domain


def check(recipe: Path, *arguments: str) -> CompletedProcess[str]:
    return call("data", *arguments, recipe)


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of its own over three small sets, in order."""
    write_domain(tmp_path / "source", 12, 0, foggy=False, labeled=True)
    write_domain(tmp_path / "target", 4, 1, foggy=True, labeled=False)
    write_domain(tmp_path / "target-val", 4, 2, foggy=True, labeled=True)
    tree = {**RECIPE, "data_root": str(tmp_path)}
    tree["label_space"] = {"name": "scene", "classes": ["ground", "box", "sky", "cloud", "bird"]}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_what_is_in_order_passes_with_its_warnings(recipe: Path) -> None:
    result = check(recipe, "check")
    assert result.returncode == 0, result.stderr
    assert "sources.clear: 12 images" in result.stdout
    assert "classes without any source pixel: cloud, bird" in result.stdout


def test_twelve_planted_defects_in_one_pass(recipe: Path) -> None:
    root = recipe.parent
    images, labels = root / "source/images", root / "source/labels"
    (labels / "000.png").unlink()  # 1 an image without label
    shutil.copy(labels / "001.png", labels / "lonely.png")  # 2 a label without image
    (images / "002.png").write_bytes(b"no image")  # 3 unreadable
    content = (labels / "003.png").read_bytes()
    (labels / "003.png").write_bytes(content[: len(content) // 2])  # 4 truncated
    save(labels / "004.png", np.zeros((20, 48), np.uint8))  # 5 another size
    save(labels / "005.png", np.full((40, 48), 77, np.uint8))  # 6 a value outside the space
    save(labels / "006.png", np.tile(np.uint8([9, 0, 0]), (40, 48, 1)))  # 7 colors where indices are expected
    save(labels / "007.png", np.full((40, 48), 255, np.uint8))  # 8 no class at all
    save(root / "target-val/labels/000.png", np.full((40, 48), 4, np.uint8))  # 9 a class that only validation has
    shutil.copy(root / "target/images/001.png", root / "target-val/images/001.png")  # 10 train = validation
    save(root / "target/images/002.png", np.zeros((16, 24, 3), np.uint8))  # 11 smaller than the crop
    # 12: "cloud" has no source pixel
    result = check(recipe, "check")
    assert result.returncode == 2
    expected = {
        "images without label: 1 of": result.stderr,
        "002.png: unreadable": result.stderr,
        "003.png: unreadable or truncated": result.stderr,
        "004.png: 48x20 pixels, but its image": result.stderr,
        "005.png: label value outside scene: 77 (100.00% of the pixels)": result.stderr,
        "006.png: expected a one-channel label image, found mode RGB": result.stderr,
        "labels without image: 1 of 12, e.g. " + str(labels / "lonely.png"): result.stdout,
        "1 labels have no class at all (255 everywhere), e.g. that of " + str(images / "007.png"): result.stdout,
        "classes that only the validation shows: bird": result.stdout,
        f"e.g. {root / 'target-val/images/001.png'} is {root / 'target/images/001.png'}": result.stdout,
        f"smaller than the crop of 32x32 and will be padded, e.g. {root / 'target/images/002.png'}": result.stdout,
        "classes without any source pixel: cloud, bird": result.stdout,
    }
    missing = [text for text, stream in expected.items() if text not in stream]
    assert not missing, result.stdout + result.stderr
    assert "6 problem(s)" in result.stderr


def test_a_target_that_is_the_source_is_noticed(recipe: Path) -> None:
    tree = yaml.safe_load(recipe.read_text())
    tree["targets"][0]["root"] = tree["sources"][0]["root"]
    recipe.write_text(yaml.safe_dump(tree))
    assert "targets.fog: the same images as sources.clear" in check(recipe, "check").stdout


def test_stats_as_a_table_and_a_picture(recipe: Path, tmp_path: Path) -> None:
    picture = tmp_path / "shares.png"
    result = check(recipe, "stats", "--out", str(picture))
    assert result.returncode == 0, result.stderr
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in result.stdout.splitlines() if "│" in line}
    shares = [float(rows[name][0]) for name in ("ground", "box", "sky", "cloud", "bird")]
    assert sum(shares) == pytest.approx(100, abs=0.05)
    assert shares[3] == shares[4] == 0
    assert float(rows["sky"][1]) == 100
    with Image.open(picture) as drawn:
        assert drawn.width > 400
