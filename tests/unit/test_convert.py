"""Conversion of known data sets to files: values, statistics, interruption."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.data.index_image import read_index_image
from domainbridge.errors import DataError, StorageError
from domainbridge.files import write_file
from domainbridge.tools import convert as convert_module
from domainbridge.tools.convert import Conversion, convert_layout
from layout_trees import CITY_IDS, SIZE, TREES, scene


def convert(dataset: str, root: Path, out: Path, split: str | None = None, **rule: bool) -> int:
    return convert_layout(dataset, root, split, Conversion(out, **rule), lambda done, total: None)


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_ids_and_statistics(tmp_path: Path) -> None:
    TREES["gta5"](tmp_path / "gta")
    assert convert("gta5", tmp_path / "gta", tmp_path / "out") == 4
    assert np.array_equal(read_index_image(tmp_path / "out/labels/00003.png"), scene(3))
    stats = json.loads((tmp_path / "out/sample_class_stats.json").read_text())
    values, counts = np.unique(scene(1), return_counts=True)
    expected = {str(v): int(c) for v, c in zip(values, counts, strict=True) if v != 255}
    assert stats[0] == {**expected, "file": "labels/00001.png"}
    per_class = json.loads((tmp_path / "out/samples_with_class.json").read_text())
    assert per_class["13"][2] == ["labels/00003.png", int((scene(3) == 13).sum())]


def test_label_ids(tmp_path: Path) -> None:
    TREES["mapillary"](tmp_path / "map")
    convert("mapillary", tmp_path / "map", tmp_path / "out", "val", label_ids=True)
    values = read_index_image(tmp_path / "out/labels/abc1-_X.png")
    for train_id, label_id in CITY_IDS.items():
        assert ((values == label_id) == (scene(1) == train_id)).all()
    stats = json.loads((tmp_path / "out/sample_class_stats.json").read_text())
    assert set(stats[0]) == {"0", "2", "10", "13", "file"}


def test_halved_copies(tmp_path: Path) -> None:
    TREES["mapillary"](tmp_path / "map")
    convert("mapillary", tmp_path / "map", tmp_path / "out", "val", half=True)
    with Image.open(tmp_path / "out/images/abc0-_X.jpg") as image:
        assert image.size == (SIZE[1] // 2, SIZE[0] // 2)
    assert np.array_equal(read_index_image(tmp_path / "out/labels/abc0-_X.png"), scene(0)[::2, ::2])


def test_interrupted_and_started_again_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TREES["cityscapes"](tmp_path / "city")
    convert("cityscapes", tmp_path / "city", tmp_path / "whole", "train")
    saved: list[Path] = []
    lock = threading.Lock()

    def half_a_file(temporary: Path) -> None:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    def interrupted(path: Path, save: Callable[[Path], object]) -> None:
        with lock:
            write_file(path, save if len(saved) < 2 else half_a_file)
            saved.append(path)

    monkeypatch.setattr(convert_module, "write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert("cityscapes", tmp_path / "city", tmp_path / "out", "train")
    assert len(saved) == 2
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert not (tmp_path / "out/sample_class_stats.json").exists()
    untouched = saved[0].stat().st_mtime_ns
    monkeypatch.setattr(convert_module, "write_file", write_file)
    convert("cityscapes", tmp_path / "city", tmp_path / "out", "train")
    assert saved[0].stat().st_mtime_ns == untouched
    assert bytes_below(tmp_path / "out") == bytes_below(tmp_path / "whole")


def test_unreadable_labels_are_listed_and_the_rest_is_done(tmp_path: Path) -> None:
    TREES["synthia"](tmp_path / "syn")
    for number in (1, 3):
        (tmp_path / f"syn/GT/LABELS/{number:07}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2 of 4 could not be converted") as caught:
        convert("synthia", tmp_path / "syn", tmp_path / "out")
    assert "0000001.png" in str(caught.value)
    assert "0000003.png" in str(caught.value)
    assert len(bytes_below(tmp_path / "out/labels")) == 2


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    TREES["gta5"](tmp_path / "gta")
    convert("gta5", tmp_path / "gta", tmp_path / "out")
    for label in (tmp_path / "out/labels").iterdir():
        label.unlink()
    (tmp_path / "out/labels").rmdir()
    (tmp_path / "out/labels").write_text("a file in the place of a folder")
    with pytest.raises(StorageError, match=r"out/labels/00001\.png: cannot be written"):
        convert("gta5", tmp_path / "gta", tmp_path / "out")


def test_a_folder_of_another_conversion_is_refused(tmp_path: Path) -> None:
    TREES["gta5"](tmp_path / "gta")
    convert("gta5", tmp_path / "gta", tmp_path / "out")
    before = bytes_below(tmp_path / "out")
    with pytest.raises(DataError, match="choose another folder with --out"):
        convert("gta5", tmp_path / "gta", tmp_path / "out", label_ids=True)
    assert bytes_below(tmp_path / "out") == before
    TREES["camvid"](tmp_path / "camvid")
    with pytest.raises(DataError, match="no Cityscapes ids"):
        convert("camvid", tmp_path / "camvid", tmp_path / "other", label_ids=True)
