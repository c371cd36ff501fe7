"""`data check` a second time: the findings of unchanged files are kept, and never those of changed ones."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_check import LABELS, Data

from domainbridge.build.datasets import open_data
from domainbridge.data.user_cache import CHANGING_NS
from domainbridge.tools.check import AT_MOST, kept_or_new_survey
from domainbridge.tools.survey import Survey


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    """Files that are old enough for what is known of them to be kept."""
    monkeypatch.setenv("DOMAINBRIDGE_CACHE", str(tmp_path / "cache"))
    data = Data(tmp_path / "data")
    settle()
    return data


def settle() -> None:
    time.sleep(CHANGING_NS / 1e9 + 0.1)


def look(data: Data, at_most: int | None = None, *, again: bool = False) -> tuple[Survey, bool]:
    """The survey, and whether it is a kept one."""
    recipe, lines = data.recipe(), []
    survey = kept_or_new_survey(recipe, open_data(recipe), lines.append, at_most, again=again)
    return survey, any("unchanged since the check of" in line for line in lines)


def parts(survey: Survey) -> list[object]:
    domains = [(d.name, d.images, d.warnings, d.notes, d.ignored, str(d.counts)) for d in survey.domains]
    return [domains, survey.warnings]


def test_unchanged_files_are_decoded_once(data: Data) -> None:
    labels = LABELS.copy()
    labels[:2] = 7
    data.label(0, labels)
    data.source["label_map"] = {0: "ground", 1: "crop"}
    settle()
    first, kept = look(data)
    assert not kept
    assert "values that label_map does not list" in first.all_warnings[0]
    second, kept = look(data)
    assert kept
    assert parts(first) == parts(second)
    assert look(data, AT_MOST)[1], "what all files say holds for some of them"
    assert not look(data, again=True)[1]


def test_some_files_do_not_stand_for_all(data: Data) -> None:
    assert not look(data, AT_MOST)[1]
    assert look(data, AT_MOST)[1]
    assert not look(data)[1]


def test_an_edit_is_noticed_whatever_its_time_and_size(data: Data) -> None:
    look(data)
    path = data.folder / "s/l/0.png"
    before = path.stat()
    content = path.read_bytes()
    Image.fromarray(LABELS[::-1].copy()).save(path)
    path.write_bytes(path.read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    settle()
    assert not look(data)[1]


@pytest.mark.parametrize("change", ["another key", "another file", "a file less"])
def test_other_data_are_looked_at(change: str, data: Data) -> None:
    look(data)
    if change == "another key":
        data.source["label_map"] = {0: "crop", 1: "ground"}
    elif change == "another file":
        Image.fromarray(np.full((6, 8, 3), 9, np.uint8)).save(data.folder / "t/new.png")
        settle()
    else:
        (data.folder / "t/0.png").unlink()
    assert not look(data)[1]


def test_errors_and_files_of_this_moment_are_not_kept(data: Data) -> None:
    Image.fromarray(LABELS).save(data.folder / "s/l/0.png")
    look(data)
    assert not look(data)[1], "written within the resolution of its times"
    (data.folder / "s/l/0.png").write_bytes(b"broken")
    settle()
    assert look(data)[0].all_errors
    assert not look(data)[1]


def test_a_damaged_cache_is_none(data: Data) -> None:
    look(data)
    (path,) = (data.folder.parent / "cache/surveys").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"images": 3', b'"images": 4'))
    survey, kept = look(data)
    assert not kept
    assert survey.domains[0].images == 3
    path.unlink()
    path.mkdir()
    assert not look(data)[1]
