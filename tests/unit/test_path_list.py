"""Paths in one block of text, and the fingerprints of long lists."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainbridge.data import fingerprint
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.path_list import PathList
from domainbridge.data.samples import FileSamples, in_threads

names = st.lists(st.text("aböß/. ", min_size=1, max_size=9).map(Path), max_size=8)


@given(names, st.sampled_from(["", "/some/where", "here"]))
def test_it_is_the_sequence_of_its_paths(names: list[Path], folder: str) -> None:
    paths = [Path(f"{folder}/{name}") if folder else name for name in names]
    packed = PathList(names, folder)
    assert list(packed) == paths
    assert packed == tuple(paths)
    assert [packed[number] for number in range(-len(paths), 0)] == paths
    assert packed[1:] == paths[1:]
    assert pickle.loads(pickle.dumps(packed)) == packed
    assert packed.digest == PathList(names, "elsewhere").digest
    assert (packed.digest == PathList([*names, "more"], folder).digest) is False
    assert packed != [*paths, Path("more")]
    with pytest.raises(IndexError):
        packed[len(paths)]


def listed(folder: Path, count: int) -> FileSamples:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_text("x")
    return FileSamples("here", PathList((f"{number}.png" for number in range(count)), str(folder)))


def test_fingerprints_follow_names_and_sizes_and_not_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = listed(tmp_path / "one", 5), listed(tmp_path / "other", 5)
    assert files_fingerprint(one) == files_fingerprint(other)
    monkeypatch.chdir(tmp_path)
    relative = FileSamples("here", PathList(path.relative_to(tmp_path) for path in one.images))
    assert files_fingerprint(relative) == files_fingerprint(one)
    assert files_fingerprint(replace(one, images=one.images[:4])) != files_fingerprint(one)
    (tmp_path / "other/4.png").write_text("longer")
    assert files_fingerprint(replace(other)) != files_fingerprint(one)


def test_of_many_files_some_sizes_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_ALL_AT_MOST", 5)
    monkeypatch.setattr(fingerprint, "_SAMPLED", 3)
    files = listed(tmp_path / "many", 6)
    before = files_fingerprint(files)
    assert files_fingerprint(listed(tmp_path / "moved", 6)) == before
    assert files_fingerprint(replace(files, images=files.images[1:])) != before
    (tmp_path / "many/1.png").write_text("longer")
    assert files_fingerprint(replace(files)) == before
    (tmp_path / "many/2.png").write_text("longer")
    assert files_fingerprint(replace(files)) != before


def test_work_in_threads_keeps_its_order_and_its_errors() -> None:
    assert list(in_threads(lambda index: index * index, range(50))) == [index * index for index in range(50)]
    results = in_threads(lambda index: 1 // (index - 3), range(50))
    with pytest.raises(ZeroDivisionError):
        list(results)
