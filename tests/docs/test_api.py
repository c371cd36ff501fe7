"""docs/api.md is printed from the docstrings of the public names; ARCHITECTURE.md names every file."""

import re
import runpy
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

import domainbridge

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/api.md").read_text()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Python versions print types in other words")
def test_the_page_is_that_of_the_docstrings() -> None:
    """After a changed docstring: `python scripts/api_page.py > docs/api.md`."""
    with redirect_stdout(StringIO()) as printed:
        runpy.run_path(str(PROJECT / "scripts/api_page.py"), run_name="__main__")
    assert printed.getvalue() == PAGE


@pytest.mark.parametrize("name", sorted({*domainbridge.__all__} - {"__version__"}))
def test_every_public_name_is_on_the_page_and_documented(name: str) -> None:
    assert f"### {name}\n" in PAGE
    assert getattr(domainbridge, name).__doc__


def test_the_tree_names_every_file() -> None:
    tree = (PROJECT / "ARCHITECTURE.md").read_text().split("## Tree")[1].split("## Imports")[0]
    named = set(re.findall(r"\w+\.py", tree))
    modules = {path.name for path in (PROJECT / "src/domainbridge").rglob("*.py")} - {"__init__.py"}
    layouts = {path.name for path in (PROJECT / "src/domainbridge/data/layouts").glob("*.py")}
    assert named == modules - (layouts - {"base.py"})
