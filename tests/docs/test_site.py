"""The documents as a site: built strictly, every page in the table of contents, nothing fetched from elsewhere."""

import re
import warnings
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
ELSEWHERE = r"""["']?((?:https?:)?//[^"' >)]+)"""
FETCHED = re.compile(
    rf"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc={ELSEWHERE}"
    rf"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*?\bhref={ELSEWHERE}"
    rf"|(?:url\(|@import )\s*{ELSEWHERE}"
)
"""What a browser fetches without a click: scripts, pictures, style sheets, fonts."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="pip install 'domainbridge[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        build(load_config(str(PROJECT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_every_page_is_in_the_table_of_contents(site: Path) -> None:
    home = (site / "index.html").read_text()
    pages = {path.stem for path in (PROJECT / "docs").glob("*.md")}
    assert pages
    for page in (*pages, "architecture", "contributing", "changelog", "recipes", "results"):
        assert (site / f"{page}.html").exists()
        assert f'href="{page}.html"' in home, page


def test_the_recipes_and_the_results_are_those_of_the_project(site: Path) -> None:
    recipes = (site / "recipes.html").read_text()
    for path in (PROJECT / "src/domainbridge/recipes").glob("*.yaml"):
        assert f">{path.stem}<" in recipes
    assert "city-to-camvid" in (site / "results.html").read_text()


def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(pages) > 20
    for page in pages:
        addresses = [next(filter(None, match)) for match in FETCHED.findall(page.read_text())]
        assert not addresses, f"{page.name}: {addresses}"
    for address in ("https://fonts.example/x.css", "//cdn.example/x.css"):
        assert FETCHED.search(f'<link rel="stylesheet" href="{address}">')
        assert FETCHED.search(f"@font-face {{ src: url({address}) }}")
        assert FETCHED.search(f'<script async src="{address}"></script>')
    assert not FETCHED.search('<a href="https://arxiv.org/abs/2209.07695">paper</a>')


def test_the_table_of_contents_names_no_page_twice() -> None:
    text = (PROJECT / "mkdocs.yml").read_text()
    files = re.findall(r": ([\w-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert len(files) == len(set(files)) > 20
    assert yaml.safe_load(text)["theme"]["font"] is False
