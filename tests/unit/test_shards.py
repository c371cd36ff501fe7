"""Sets in tar archives: listed, read and packed; the same samples as from files."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from domainbridge.build.datasets import DataSets, open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.decode import image_size, read_image
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.index_image import read_index_image
from domainbridge.data.storage import tar
from domainbridge.data.storage.tar import open_path, read_bytes, size_and_mtime
from domainbridge.errors import DataError, StorageError
from domainbridge.tools.pack import pack_domains, recipe_lines
from domainbridge.tools.survey import survey_data
from tiny_domain import RECIPE, write_domain

RULE = FolderRule(image_pattern="{stem}.image", label_pattern="{stem}.label")


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """A recipe over generated folders."""
    for name, labeled in (("source", True), ("target", False), ("target-val", True)):
        write_domain(tmp_path / "data" / name, 7, 1, foggy=False, labeled=labeled)
    return {**RECIPE, "data_root": str(tmp_path / "data")}


def packed(tree: dict[str, Any], out: Path, size: int = 8000) -> tuple[DataSets, DataSets]:
    """The recipe's data from its folders, and from shards of that many bytes."""
    recipe = parse_recipe(tree)
    files = open_data(recipe)
    pack_domains(recipe, files, out, size, lambda _: None)
    return files, open_data(parse_recipe({**tree, **yaml.safe_load(recipe_lines(recipe, out))}))


def test_the_samples_are_those_of_the_files(tree: dict[str, Any], tmp_path: Path) -> None:
    files, shards = packed(tree, tmp_path / "shards")
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "shards").iterdir()}
    assert names == {"source-clear", "target-fog", "validation-fog"}
    assert len(list((tmp_path / "shards").glob("source-clear-*.tar"))) > 1
    for plain, sharded in zip(files.domains, shards.domains, strict=True):
        assert len(plain) == len(sharded) == 7
        for index in range(7):
            one, other = plain[index], sharded[index]
            assert (one.image == other.image).all()
            assert (one.label is None) == (other.label is None)
            if one.label is not None and other.label is not None:
                assert (one.label == other.label).all()
    assert ".tar/" in str(shards.sources[0].images[0])


@pytest.mark.parametrize("held_out", [True, False])
def test_all_labeled_sections_are_packed(held_out: bool, tree: dict[str, Any], tmp_path: Path) -> None:
    write_domain(tmp_path / "data/target", 7, 1, foggy=False, labeled=True)
    write_domain(tmp_path / "data/target-test", 3, 2, foggy=True, labeled=True)
    target = {**tree["targets"][0], "oracle": {"labels": "labels"}}
    tree |= {"oracle": True, "targets": [target if held_out else {**target, "test": {"root": "target-test"}}]}
    tree["evaluation"] = {"hold_out": 0.3 if held_out else 0.0}
    files, shards = packed(tree, tmp_path / "shards")
    names = {path.name.rpartition("-")[0] for path in (tmp_path / "shards").iterdir()}
    assert names == {"source-clear", "target-fog", "oracle-fog", "validation-fog", "test-fog"}
    assert (len(files.validation["fog"]), len(files.test["fog"])) == ((5, 2) if held_out else (7, 3))
    for plain, sharded in zip(files.domains, shards.domains, strict=True):
        assert len(plain) == len(sharded)
        for index in range(len(plain)):
            one, other = plain[index], sharded[index]
            assert (one.image == other.image).all()
            assert np.array_equal(one.label, other.label)


def test_packing_twice_gives_the_same_bytes_elsewhere_and_a_refusal_here(tree: dict[str, Any], tmp_path: Path) -> None:
    packed(tree, tmp_path / "one")
    packed(tree, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    with pytest.raises(DataError, match="shards are there already"):
        packed(tree, tmp_path / "one")


def test_labels_in_another_space_are_stored_as_training_and_scoring_read_them(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    tree["sources"] = [{**tree["sources"][0], "label_map": {0: "sky", 1: "ignore", 2: "ground"}}]
    tree["evaluation"] = {
        "label_space": {"name": "coarse", "classes": ["below", "above"]},
        "map": {"ground": "below", "box": "below", "sky": "above"},
    }
    files, shards = packed(tree, tmp_path / "shards")
    for plain, sharded in zip(files.domains, shards.domains, strict=True):
        if plain.labels is not None:
            assert all((plain.load_label(i) == sharded.load_label(i)).all() for i in range(7))
    assert set(np.unique(files.validation["fog"].load_label(0))) == {0, 1}


def test_the_check_and_the_fingerprint_see_into_archives(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(tree)
    _, shards = packed(tree, tmp_path / "shards")
    survey = survey_data(recipe, shards, lambda _: None)
    assert survey.all_errors == []
    twins = [text for text in survey.all_warnings if "are training images" in text]
    assert len(twins) == 1, "generated from one seed, validation images are training images"
    before = [files_fingerprint(domain) for domain in shards.domains]
    moved = tmp_path / "moved"
    (tmp_path / "shards").rename(moved)
    lines = yaml.safe_load(recipe_lines(recipe, moved))
    again = open_data(parse_recipe({**tree, **lines}))
    assert [files_fingerprint(domain) for domain in again.domains] == before
    shard = next(moved.glob("source-clear-*.tar"))
    add(shard, "99999999.image.png", b"x")
    add(shard, "99999999.label.png", b"x")
    assert files_fingerprint(open_data(parse_recipe({**tree, **lines})).sources[0]) != before[0]


def test_a_folder_that_cannot_be_made_is_named(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "shards").write_text("a file")
    with pytest.raises(StorageError, match=r"shards/source-clear-000000\.tar: cannot be written"):
        packed(tree, tmp_path / "shards")


def add(archive: Path, name: str, content: bytes) -> None:
    with tarfile.open(archive, "a") as file:
        header = tarfile.TarInfo(name)
        header.size = len(content)
        file.addfile(header, io.BytesIO(content))


def test_archives_of_others(tmp_path: Path) -> None:
    """Folders inside, a leading ./, hidden files; read as a folder is."""
    for name in ("./b/two.jpg", "a/one.jpg", "a/.hidden.jpg", "a/one.json"):
        add(tmp_path / "set-0.tar", name, b"content of " + name.encode())
    listing = list_folder(tmp_path / "set-*.tar", None, FolderRule(image_pattern="{stem}.jpg"))
    assert not listing.problems
    assert [str(path.relative_to(tmp_path)) for path in listing.images] == [
        "set-0.tar/a/one.jpg",
        "set-0.tar/b/two.jpg",
    ]
    assert read_bytes(listing.images[1]) == b"content of ./b/two.jpg"
    assert size_and_mtime(str(listing.images[1]))[0] == 22
    with pytest.raises(DataError, match=r"one\.jpg: unreadable or truncated"):
        read_image(listing.images[0])


def test_hard_links_are_members_and_symbolic_ones_are_refused(tmp_path: Path) -> None:
    add(tmp_path / "set.tar", "./a.png", b"content")
    link(tmp_path / "set.tar", "b.png", "./a.png", tarfile.LNKTYPE)
    assert [path.name for path in list_folder(tmp_path / "set.tar", None, FolderRule()).images] == ["a.png", "b.png"]
    assert read_bytes(tmp_path / "set.tar/b.png") == b"content"
    link(tmp_path / "set.tar", "c.png", "a.png", tarfile.SYMTYPE)
    problem, *_ = list_folder(tmp_path / "set.tar", None, FolderRule()).problems
    assert "c.png is a symbolic link" in problem


def link(archive: Path, name: str, to: str, kind: bytes) -> None:
    with tarfile.open(archive, "a") as file:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, to
        file.addfile(header)


def test_images_and_labels_in_an_archive_each(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        add(tmp_path / f"{part}.tar", "a/one.png", b"x")
    rule = FolderRule(image_pattern="images.tar/{stem}", label_pattern="labels.tar/{stem}")
    listing = list_folder(tmp_path / "images.tar", tmp_path / "labels.tar", rule)
    assert not listing.problems
    assert listing.labels is not None
    assert [*listing.images, *listing.labels] == [tmp_path / "images.tar/a/one.png", tmp_path / "labels.tar/a/one.png"]


@pytest.mark.parametrize("names", [("gta", "gta-small"), ("gta", "gta-000000")])
def test_names_that_begin_alike_stay_apart(names: tuple[str, str], tree: dict[str, Any], tmp_path: Path) -> None:
    tree["sources"] = [{**tree["sources"][0], "name": name} for name in names]
    tree["sources"][1]["exclude_files"] = ["000"]
    files, shards = packed(tree, tmp_path / "shards")
    assert [len(source) for source in shards.sources] == [len(source) for source in files.sources]


def test_names_that_would_be_one_are_refused(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["sources"] = [{**tree["sources"][0], "name": name} for name in ("gta small", "gta-small")]
    with pytest.raises(DataError, match="several domains would be called source-gta-small"):
        packed(tree, tmp_path / "shards")
    assert not (tmp_path / "shards").exists()


def test_a_header_is_all_that_is_read_for_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, "PNG")
    add(tmp_path / "set.tar", "before.png", b"x" * 700)
    add(tmp_path / "set.tar", "noise.png", content.getvalue())
    counts: list[int] = []
    original = tar.FileSlice.readinto

    def counted(part: tar.FileSlice, buffer: memoryview) -> int:
        counts.append(original(part, buffer))
        return counts[-1]

    monkeypatch.setattr(tar.FileSlice, "readinto", counted)
    assert image_size(tmp_path / "set.tar/noise.png") == (300, 400)
    assert sum(counts) < len(content.getvalue()) / 4
    assert (read_image(tmp_path / "set.tar/noise.png") == noise).all()
    with open_path(tmp_path / "set.tar/noise.png") as file:
        assert file.seek(-12, io.SEEK_END) == len(content.getvalue()) - 12
        assert file.read(100) == content.getvalue()[-12:]


def test_archives_by_their_names(tmp_path: Path) -> None:
    """A name with brackets is itself; stars need no particular place; a folder called .tar may hold archives."""
    (tmp_path / "sets.tar").mkdir()
    for name in ("set[1].tar", "set-a.tar", "sets.tar/inner.tar"):
        add(tmp_path / name, "/a.png", b"in " + name.encode())
    for pattern, archive in (("set[1].tar", "set[1].tar"), ("**a.tar", "set-a.tar"), *[("sets.tar/*.tar",) * 2]):
        listed = list_folder(tmp_path / pattern, None, FolderRule()).images
        assert [read_bytes(path) for path in listed] == [b"in " + archive.replace("*", "inner").encode()]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    listing = list_folder(tmp_path / "set-*.tar", None, RULE)
    assert listing.problems == (f"images: no such archive: {tmp_path}/set-*.tar",)
    add(tmp_path / "set-0.tar", "a.image.png", b"")
    for read in (read_image, read_index_image, image_size):
        for missing in ("set-0.tar/b.png", "set-1.tar/b.png"):
            with pytest.raises(DataError, match=r"set-.\.tar/b\.png: no such file"):
                read(tmp_path / missing)


def second_header(content: bytes) -> int:
    """Where the header of the second member is."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmembers()[1].offset


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "no archive": lambda content: b"something else" * 100,
    "cut off in a member": lambda content: content[:-11000],
    "cut off between members": lambda content: content[: second_header(content)],
    "cut off in a header": lambda content: content[: second_header(content) + 100],
    "a header overwritten": lambda content: content.replace(
        content[(at := second_header(content)) : at + 512], b"x" * 512
    ),
}


@pytest.mark.parametrize("damage", ["compressed", *DAMAGES])
def test_a_damaged_archive_is_named(damage: str, tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = parse_recipe(tree)
    packed(tree, tmp_path / "shards")
    shard = next((tmp_path / "shards").glob("target-fog-*.tar"))
    if damage == "compressed":
        with tarfile.open(shard, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.image.png"))
    else:
        shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    sharded = parse_recipe({**tree, **yaml.safe_load(recipe_lines(recipe, tmp_path / "shards"))})
    with pytest.raises(DataError, match=f"{shard.name}: expected a complete tar archive without compression"):
        open_data(sharded)


def test_a_folder_that_is_called_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    write_domain(tmp_path / "data.tar", 2, 1, foggy=False, labeled=False)
    listing = list_folder(tmp_path / "data.tar/images", None, FolderRule())
    assert [read_image(path).shape for path in listing.images] == [(40, 48, 3)] * 2
    assert [image_size(path) for path in list_folder(tmp_path / "data.tar", None, FolderRule()).images] == [
        (40, 48)
    ] * 2


def test_a_pipe_that_is_named_like_an_archive_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="expected a tar archive, found a pipe"):
        tar.archive_members(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="found a pipe"):
        read_bytes(tmp_path / "pipe.tar" / "a.png")
