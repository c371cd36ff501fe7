"""Reduced copies: what they hold, when they are made again, what is wrong with them."""

from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbridge.data.dataset import FileDataset
from domainbridge.data.label_spaces import label_space
from domainbridge.data.labels import IdLabels
from domainbridge.data.storage import cache
from domainbridge.data.storage.cache import CachedDataset, CacheRule, build_cache, bytes_needed
from domainbridge.data.transforms import ResizeRule
from domainbridge.errors import DataError, StorageError

SPACE = label_space("ab", ["a", "b"])


def dataset(folder: Path, images: int = 3) -> FileDataset:
    generator = np.random.default_rng(0)
    for kind, shape in (("images", (24, 40, 3)), ("labels", (24, 40))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(images):
            content = generator.integers(0, 256 if kind == "images" else 2, shape, np.uint8)
            Image.fromarray(content).save(folder / kind / f"{number}.png")
    paths = tuple(tuple(folder / kind / f"{number}.png" for number in range(images)) for kind in ("images", "labels"))
    return FileDataset(
        "here", paths[0], paths[1], IdLabels.in_space(np.arange(256, dtype=np.uint8), SPACE), ResizeRule(20, 12)
    )


def built(files: FileDataset, rule: CacheRule) -> CachedDataset:
    return build_cache(files, rule, lambda ready: None)


def entries(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("??/*")}


def test_lossless_copies_are_the_samples(tmp_path: Path) -> None:
    files = dataset(tmp_path)
    copies = built(files, CacheRule(tmp_path / "cache"))
    assert len(copies) == 3
    for number in range(3):
        expected, copy = files[number], copies[number]
        assert (copy.image == expected.image).all()
        assert (copy.label == expected.label).all()
        assert copy.image.shape == (12, 20, 3)
        assert copy.name == expected.name
        assert (copies.load_label(number) == files.load_label(number)).all()


def test_jpeg_copies_are_near(tmp_path: Path) -> None:
    files = dataset(tmp_path)
    slope = np.linspace(0, 255, 40 * 24).reshape(24, 40).astype(np.uint8)
    Image.fromarray(np.stack([slope, 255 - slope, slope // 2], 2)).save(files.images[0])
    copies = built(files, CacheRule(tmp_path / "cache", "jpeg", 100))
    difference = copies[0].image.astype(int) - files[0].image
    assert np.abs(difference).mean() < 4
    assert (copies[0].label == files[0].label).all(), "labels stay lossless"


def test_nothing_is_made_twice_and_what_changed_is_made_again(tmp_path: Path) -> None:
    files = dataset(tmp_path)
    rule = CacheRule(tmp_path / "cache")
    built(files, rule)
    before = entries(rule.folder)
    built(files, rule)
    assert entries(rule.folder) == before
    next(iter(before)).unlink()
    built(files, rule)
    assert set(entries(rule.folder)) == set(before), "one that is gone is made again"

    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(files.images[1])
    assert (built(files, rule)[1].image == 0).all(), "another content"
    smaller = built(replace(files, resize=ResizeRule(10, 6)), rule)
    assert smaller[0].image.shape == (6, 10, 3)
    swapped = replace(files, decoder=files.decoder.compose(np.array([1, 0, *[255] * 254], np.uint8)))
    assert (built(swapped, rule)[0].label == 1 - files[0].label).all(), "another label map"


def test_an_unlabeled_domain(tmp_path: Path) -> None:
    files = replace(dataset(tmp_path), labels=None, decoder=None)
    assert built(files, CacheRule(tmp_path / "cache"))[2].label is None


@pytest.mark.parametrize("format_", ["lossless", "jpeg"])
@pytest.mark.parametrize("left", [b"", b"nothing", None])
def test_a_damaged_entry_is_named(format_: str, left: bytes | None, tmp_path: Path) -> None:
    copies = built(dataset(tmp_path), CacheRule(tmp_path / "cache", format_))
    entry = copies.images[1]
    if left is None:
        entry.unlink()
    else:
        entry.write_bytes(left)
    with pytest.raises(DataError, match=f"{entry.name}: this entry of the cache is missing or damaged"):
        copies[1]


def test_two_builders_at_once(tmp_path: Path) -> None:
    files = dataset(tmp_path, images=12)
    rule = CacheRule(tmp_path / "cache")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: built(files, rule), range(4)))
    assert all((copies[11].image == files[11].image).all() for copies in results)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_build_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    files = dataset(tmp_path, images=30)
    rule = CacheRule(tmp_path / "cache")

    def stop(ready: int) -> None:
        if ready == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(files, rule, stop)
    before = entries(rule.folder)
    assert 6 <= len(before) < 60
    assert len(built(files, rule)) == 30
    after = entries(rule.folder)
    assert len(after) == 60
    assert {path: after[path] for path in before} == before


def test_an_unreadable_original_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    files = dataset(tmp_path)
    files.images[2].write_bytes(b"nothing")
    rule = CacheRule(tmp_path / "cache")
    with pytest.raises(DataError, match=r"2\.png: unreadable"):
        built(files, rule)
    assert len(entries(rule.folder)) == 4


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dataset(tmp_path)
    rule = CacheRule(tmp_path / "cache")
    assert bytes_needed(files, rule) == 3 * 12 * 20 * 4
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage(1000))
    with pytest.raises(DataError, match=r"GiB free, but the missing copies of here take .*cache\.format=jpeg"):
        built(files, rule)
    assert not entries(rule.folder)


def test_a_copy_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    files = dataset(tmp_path)
    rule = CacheRule(tmp_path / "cache")
    for copy in (*(copies := built(files, rule)).images, *copies.labels):
        copy.unlink()
    folder = copies.images[0].parent
    folder.rmdir()
    folder.write_text("a file in the place of a folder")
    with pytest.raises(StorageError, match=r"\.npy: cannot be written"):
        built(files, rule)
    assert not list(tmp_path.rglob("*.tmp"))
