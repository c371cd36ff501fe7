"""Files about installing agree with each other: package metadata, Dockerfile, workflow, docs/installing.md."""

import fnmatch
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import domainbridge
from domainbridge.installed import EXTRAS

PROJECT = Path(__file__).parents[2]
METADATA: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT_TABLE = METADATA["project"]
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))


def text(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def test_the_version_stands_in_one_file() -> None:
    assert "version" in PROJECT_TABLE["dynamic"]
    assert METADATA["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "domainbridge.__version__"}
    assert yaml.safe_load(text("CITATION.cff"))["version"] == domainbridge.__version__
    assert text("CHANGELOG.md").startswith("# Changelog\n\n## Unreleased\n")


def test_extras_with_a_purpose_exist_and_stand_on_the_page() -> None:
    assert set(EXTRAS) <= set(PROJECT_TABLE["optional-dependencies"])
    for name in set(EXTRAS) - {"dev", "efficientnet"}:
        assert f"| `{name}` |" in text("docs/installing.md")


def test_python_versions_are_those_of_the_matrix() -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = {f"3.{line.removeprefix(prefix)}" for line in PROJECT_TABLE["classifiers"] if line.startswith(prefix)}
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == classified
    installed = jobs["install"]["strategy"]["matrix"]
    assert set(installed["python"]) == classified
    assert {name.split("-")[0] for name in installed["os"]} == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit(path: Path) -> None:
    uses = re.findall(r"uses: (\S+)(.*)", path.read_text(encoding="utf-8"))
    assert uses
    for action, comment in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: the version as a comment"


def test_commands_of_workflows_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    for path in WORKFLOWS:
        assert set(re.findall(r"run: make ([a-z-]+)", path.read_text(encoding="utf-8"))) <= targets


def test_the_image_runs_the_two_commands_of_the_readme() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert {"cpu", "cuda"} <= stages
    assert re.findall(r"^CMD (.*)", DOCKERFILE, re.MULTILINE) == ['["make", "demo"]'] * 2
    readme = text("README.md").split("## Two commands")[1].split("```")[1].split("\n")[1:-1]
    assert readme == ["make demo", "make test"]
    page = text("docs/installing.md")
    for command in readme:
        for place in (DOCKERFILE, page):
            assert re.search(rf"docker run .*domainbridge:cpu {command}", place), f"{command} in the image"
    for line in re.findall(r"docker build (.*)", page + DOCKERFILE):
        assert re.search(r"--target (\w+)", line)[1] in stages  # type: ignore[index]


def test_what_the_image_copies_is_there_and_complete() -> None:
    """`COPY . .` takes the folder without what .dockerignore names: nothing that is tracked may be left out."""
    copied = [shlex.split(line)[1:] for line in re.findall(r"^(COPY .*)", DOCKERFILE, re.MULTILINE)]
    assert [[word for word in line if not word.startswith("--")] for line in copied] == [[".", "."]]
    patterns = [line for line in text(".dockerignore").splitlines() if line and not line.startswith("#")]
    needed = [
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "src",
        "tests",
        "docs",
        "scripts",
    ]
    for name in needed:
        assert (PROJECT / name).exists()
        assert not any(fnmatch.fnmatch(name, pattern.removeprefix("**/")) for pattern in patterns), name
    for name in (".venv", "runs"):
        assert name in patterns, "another system's environment, or large results"


def test_files_of_the_sdist_exist() -> None:
    for line in text("MANIFEST.in").splitlines():
        verb, _, rest = line.partition(" ")
        if verb == "include":
            assert all((PROJECT / name).is_file() for name in rest.split()), line
        elif verb == "recursive-include":
            folder, *patterns = rest.split()
            assert any(list((PROJECT / folder).rglob(pattern)) for pattern in patterns), line
