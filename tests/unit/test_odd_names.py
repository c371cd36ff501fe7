"""Names and paths as people type them, and lists of names as programs write them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from domainbridge.config.yaml_text import YamlError, parse_yaml
from domainbridge.data.absent import absence
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.pairing import pattern_advice
from domainbridge.data.split_file import read_split


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("data/Images", "did you mean {root}/data/images?"),
        ("data/imagse/day", "did you mean {root}/data/images?"),
        ("data/x/y", "{root}/data has the folders images, labels"),
        ("data/images\u00a0", r"U+00A0 (NO-BREAK SPACE)"),
        ("data/“images”", "U+201C (LEFT DOUBLE QUOTATION MARK)"),
        ("$HOME/images", "variables such as $HOME are not replaced"),
        ("data\\images", "write / between folders"),
        ("data/images/*.png", "a name and no pattern"),
    ],
)
def test_a_path_that_does_not_exist(path: str, hint: str, tmp_path: Path) -> None:
    touch(tmp_path, "data/images/a.png", "data/labels/a.png")
    assert hint.format(root=tmp_path) in absence(tmp_path / path)


def named(*names: str) -> Mapping[str, str]:
    return {name.rpartition(".")[0]: name for name in names}


@pytest.mark.parametrize(
    ("images", "labels", "advice"),
    [
        (("a_rgb.jpg", "b_rgb.jpg"), ("a_gt.png", "b_gt.png"), ("{stem}_rgb.jpg", "{stem}_gt.png")),
        (("img_1.jpg", "img_2.jpg"), ("mask_1.png", "mask_2.png"), ("img_{stem}.jpg", "mask_{stem}.png")),
        (("a.jpg", "b.jpg"), ("a.jpg.png", "b.jpg.png"), ("{stem}.jpg", "{stem}.jpg.png")),
        (("x/a_1.jpg", "y/a_2.jpg"), ("x/a_1_l.png", "y/a_2_l.png"), ("{stem}.jpg", "{stem}_l.png")),
        (("a.jpg", "b.jpg"), ("1.png", "2.png"), None),
        (("a_1.jpg",), ("b_1.png",), None),
        (("train/1.jpg", "train/2.jpg", "val/5.jpg", "val/6.jpg"), ("val/5.png", "val/6.png"), None),
    ],
)
def test_patterns_that_pair_are_named(
    images: tuple[str, ...], labels: tuple[str, ...], advice: tuple[str, str] | None, tmp_path: Path
) -> None:
    text = pattern_advice(named(*images), named(*labels))
    if advice is None:
        assert text == ""
        return
    assert text == f"; set image_pattern: '{advice[0]}' and label_pattern: '{advice[1]}'"
    folders = touch(tmp_path / "images", *images), touch(tmp_path / "labels", *labels)
    assert text in list_folder(*folders, FolderRule()).problems[0]
    listing = list_folder(*folders, FolderRule(image_pattern=advice[0], label_pattern=advice[1]))
    assert not listing.problems
    assert len(listing.images) == len(images)


def test_upper_and_lower_case_of_names_is_pointed_out(tmp_path: Path) -> None:
    touch(tmp_path, "images/A.JPG", "images/B.JPG", "labels/a.png", "labels/b.png")
    listing = list_folder(tmp_path / "images", tmp_path / "labels", FolderRule())
    assert "(did you mean a?)" in listing.problems[0]


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b",image,label\n0,c/a.jpg,c/a.png\n1,c/b.jpg,c/b.png\n", "column 'image'"),
        (b'"Unnamed: 0";"split";"file_name"\n"0";"train";"c/a.jpg"\n"1";"train";"c/b"\n', "column 'file_name'"),
        (b"0,c/a.jpg\n1,c/b.jpg\n", None),
        (b"0\t1.0\tc/a.jpg\n1\t0.0\tc/b.jpg\n", None),
        ("c/a\r\nc/b\r\n".encode("utf-16-le"), None),
        ("c/a\nc/b\n".encode("utf-16-be"), None),
    ],
)
def test_lists_of_images(content: bytes, note: str | None, tmp_path: Path) -> None:
    touch(tmp_path, "images/c/a.jpg", "images/c/b.jpg", "images/c/d.jpg")
    (tmp_path / "split.txt").write_bytes(content)
    listing = list_folder(tmp_path / "images", None, FolderRule(split=tmp_path / "split.txt"))
    assert [image.name for image in listing.images] == ["a.jpg", "b.jpg"]
    assert not listing.problems
    assert note is None or note in " ".join(listing.notes)


def test_a_name_that_is_a_number_is_no_row_number(tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("0001 labels/0001.png\n")
    assert read_split(tmp_path / "split.txt").entries == (("0001 labels/0001.png", "0001"),)


def test_excluded_files_may_have_their_endings(tmp_path: Path) -> None:
    touch(tmp_path, "images/c/a.jpg", "images/c/b.jpg")
    listing = list_folder(tmp_path / "images", None, FolderRule(exclude_files=("c/a.jpg",)))
    assert [image.name for image in listing.images] == ["b.jpg"]
    assert not listing.problems


def test_merged_keys_may_be_written_again() -> None:
    text = "base: &base {steps: 4, rate: 1}\nother: {<<: *base, steps: 5}\n"
    assert parse_yaml(text).tree["other"] == {"steps": 5, "rate": 1}
    with pytest.raises(YamlError, match="'steps' is written twice"):
        parse_yaml(text.replace("steps: 5", "steps: 5, steps: 6"))
