"""Long listings are remembered, and believed exactly as long as nothing changes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError

from domainbridge.config.load import parse_recipe
from domainbridge.data import listing_memory
from domainbridge.data.layout_listing import list_layout
from domainbridge.data.listing import FolderRule, Listing, list_folder
from domainbridge.data.listing_memory import remembered_listing
from domainbridge.pipeline.datasets import open_data
from tiny_domain import RECIPE, write_domain


@pytest.fixture(autouse=True)
def _few_files_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_memory, "_AT_LEAST", 1)
    monkeypatch.setattr(listing_memory, "_SETTLED_SECONDS", -3600)  # no test has time to wait


def settle(folder: Path) -> None:
    """As if nothing had been changed for an hour."""
    for path in (folder, *folder.rglob("*")):
        stamp = path.stat().st_mtime - 3600
        os.utime(path, (stamp, stamp))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Images and labels in two subfolders each, one more that is empty, and a split file."""
    root = tmp_path / "set"
    for kind in ("images", "labels"):
        for part in "ab":
            (root / kind / part).mkdir(parents=True)
            for number in range(30):
                (root / kind / part / f"{number:02}.png").touch()
    (root / "images/empty").mkdir()
    (root / "train.txt").write_text("a/03\nb/07\n")
    settle(root)
    return root


class Counted:
    """Lists a folder through the memory and counts how often it really did."""

    def __init__(self, memory: Path, root: Path, split: str | None = None) -> None:
        self.memory, self.root, self.times = memory, root, 0
        self.rule = FolderRule(split=root / split if split else None)

    def __call__(self) -> Listing:
        def make() -> Listing:
            self.times += 1
            return list_folder(self.root / "images", self.root / "labels", self.rule)

        return remembered_listing(self.memory, (self.root, self.rule), make)


def test_the_second_listing_is_the_first_and_touches_no_file(files: Path, tmp_path: Path) -> None:
    listed = Counted(tmp_path / "memory", files)
    first, second = listed(), listed()
    assert listed.times == 1
    assert len(second.images) == 60
    assert second == first
    assert (second.images.digest, second.images.folder) == (first.images.digest, str(files / "images"))
    assert list(second.images)[31] == files / "images/b/01.png"


CHANGES: dict[str, Callable[[Path], object]] = {
    "an image more": lambda root: (root / "images/a/new.png").touch(),
    "an image in an empty folder": lambda root: (root / "images/empty/new.png").touch(),
    "a label less": lambda root: (root / "labels/b/00.png").unlink(),
    "a folder more": lambda root: (root / "images/more").mkdir(),
    "a file renamed": lambda root: (root / "images/a/00.png").rename(root / "images/a/other.png"),
    "everything gone": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, files: Path, tmp_path: Path) -> None:
    listed = Counted(tmp_path / "memory", files)
    listed()
    CHANGES[change](files)
    fresh = Counted(tmp_path / "other", files)()
    assert listed() == fresh
    assert listed.times == 2


def test_a_changed_split_file_is_seen(files: Path, tmp_path: Path) -> None:
    listed = Counted(tmp_path / "memory", files, "train.txt")
    assert [image.name for image in listed().images] == ["03.png", "07.png"]
    listed()
    assert listed.times == 1
    (files / "train.txt").write_text("a/05\n")
    assert [image.name for image in listed().images] == ["05.png"]


@pytest.mark.parametrize("times_set_back", [False, True])
def test_what_changed_a_moment_ago_is_not_remembered(
    times_set_back: bool, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_memory, "_SETTLED_SECONDS", 60)
    (files / "images/a/new.png").touch()
    (files / "labels/a/new.png").touch()
    if times_set_back:  # as tools that copy or unpack do
        settle(files)
    listed = Counted(tmp_path / "memory", files)
    assert len(listed().images) == len(listed().images) == 61
    assert listed.times == 2


def test_problems_are_not_remembered(files: Path, tmp_path: Path) -> None:
    (files / "labels/a/00.png").unlink()
    settle(files)
    listed = Counted(tmp_path / "memory", files)
    assert listed().problems
    assert listed().problems
    assert listed.times == 2


def truncated(content: bytes) -> bytes:
    return content[:-40]


def scrambled(content: bytes) -> bytes:
    return b"x" * len(content)


def emptied(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [truncated, scrambled, emptied])
def test_a_damaged_entry_counts_as_none(damage: Callable[[bytes], bytes], files: Path, tmp_path: Path) -> None:
    listed = Counted(tmp_path / "memory", files)
    first = list(listed().images)
    entry = next((tmp_path / "memory").iterdir())
    entry.write_bytes(damage(entry.read_bytes()))
    assert list(listed().images) == first
    assert listed.times == 2


def test_a_memory_that_cannot_be_written_does_no_harm(files: Path, tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file, not a folder")
    listed = Counted(tmp_path / "memory", files)
    assert listed() == listed()
    assert listed.times == 2


def test_a_full_disk_does_no_harm(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(listing_memory, "save_file", full)
    listed = Counted(tmp_path / "memory", files)
    assert listed() == listed()
    assert listed.times == 2
    assert not list((tmp_path / "memory").iterdir())


def test_an_entry_that_cannot_be_touched_is_believed(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> None:
        raise PermissionError

    listed = Counted(tmp_path / "memory", files)
    listed()
    monkeypatch.setattr(listing_memory.os, "utime", denied)
    assert len(listed().images) == 60
    assert listed.times == 1


def test_a_disk_mounted_later_is_seen(files: Path, tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (files / kind / "disk").symlink_to(tmp_path / f"disk-{kind}")
    settle(files / "images/a")
    listed = Counted(tmp_path / "memory", files)
    assert len(listed().images) == 60
    for kind in ("images", "labels"):
        (tmp_path / f"disk-{kind}").mkdir()
        (tmp_path / f"disk-{kind}/new.png").touch()
    assert len(listed().images) == 61


def test_old_entries_go(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_memory, "_ENTRIES", 2)
    for number in range(4):
        remembered_listing(tmp_path, (number,), lambda: list_folder(files / "images", None, FolderRule()))
    assert len(list(tmp_path.glob("*.listing"))) == 2


def test_a_better_place_of_a_layout_that_appears_later_is_seen(tmp_path: Path) -> None:
    root = tmp_path / "mapillary"
    for folder, suffix in (("images", "jpg"), ("labels", "png")):
        (root / "training" / folder).mkdir(parents=True)
        for number in range(30):
            (root / "training" / folder / f"{number}.{suffix}").touch()
    settle(root)
    times = []

    def listed() -> Listing:
        def make() -> Listing:
            times.append(1)
            return list_layout("mapillary", root, "train", (), labelled=True)

        return remembered_listing(tmp_path / "memory", (), make)

    assert listed() == listed()
    assert len(times) == 1
    shutil.copytree(root / "training/labels", root / "training/v1.2/labels")
    labels = listed().labels
    assert labels is not None
    assert labels[0] == root / "training/v1.2/labels/0.png"


def test_runs_remember_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("domainbridge.pipeline.datasets.user_cache_path", lambda name: tmp_path / "cache" / name)
    for name, labelled in (("source", True), ("target", False), ("target-val", True)):
        write_domain(tmp_path / "data" / name, 40, 1, foggy=False, labelled=labelled)
    settle(tmp_path / "data")
    recipe = parse_recipe({**RECIPE, "data_root": str(tmp_path / "data")})
    forgetful = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"remember_listings": False})})
    first = [domain.images for domain in open_data(forgetful).domains]
    assert not (tmp_path / "cache").exists()
    assert [domain.images for domain in open_data(recipe).domains] == first
    assert len(list((tmp_path / "cache/domainbridge/listings").glob("*.listing"))) == 3
    assert [domain.images for domain in open_data(recipe).domains] == first
