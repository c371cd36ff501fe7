"""Hooks of mkdocs: pages that are made of other files, a table of contents that never names a missing page.

The documents are written for GitHub's Markdown, which needs no empty line before a list; Python-Markdown does.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[1]
FROM_THE_ROOT = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages that GitHub shows at the root, and their place in the site."""
MADE = {*FROM_THE_ROOT.values(), "recipes.md", "results.md"}
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out pages that do not exist, and add those that the table of contents does not name."""
    pages = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    pages |= MADE
    named = set(_files_of(config.nav))
    config.nav = _existing(config.nav, pages)
    if pages - named:
        config.nav.append({"More": sorted(pages - named)})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, the section of results as a page, and the shipped recipes."""
    contents = {
        place: _linked_from_docs((PROJECT / source).read_text(encoding="utf-8"))
        for source, place in FROM_THE_ROOT.items()
    }
    results = contents["index.md"].partition("\n## Results\n")[2].partition("\n## ")[0]
    contents |= {"results.md": f"# Results\n{results}", "recipes.md": recipes_page()}
    for place, content in contents.items():
        files.append(File.generated(config, place, content=content))
    return files


def recipes_page() -> str:
    """Every shipped recipe as it is, comments included."""
    page = ["# Recipes", "`domainbridge recipes copy NAME mine.yaml` makes a recipe yours; [all keys](keys.md)."]
    for path in sorted((PROJECT / "src/domainbridge/recipes").glob("*.yaml")):
        page += [f"## {path.stem}", f"```yaml\n{path.read_text(encoding='utf-8').rstrip()}\n```"]
    return "\n\n".join(page) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """An empty line before a list that follows a line of text; links out of docs/ lead to pages, or are plain text."""
    for source, place in FROM_THE_ROOT.items():
        markdown = markdown.replace(f"](../{source}", f"]({place}")
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
    lines: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        before = lines[-1] if lines else ""
        begins = bool(_ITEM.match(line)) and not line.startswith(" ")
        if not fenced and begins and before.strip() and not _ITEM.match(before) and not before.startswith(" "):
            lines.append("")
        fenced ^= bool(_FENCE.match(line))
        lines.append(line)
    return "\n".join(lines)


def _linked_from_docs(text: str) -> str:
    """Links of a page of the root, as a page of docs/ writes them; licence files have no page."""
    text = re.sub(r"\]\(docs/", "](", text)
    for source, place in FROM_THE_ROOT.items():
        text = text.replace(f"]({source}", f"]({place}")
    return text


def _files_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav
    return [file for item in items for file in _files_of(item)]


def _existing(nav: Any, pages: set[str]) -> Any:
    """The table of contents without missing pages and without sections that are empty then."""
    if isinstance(nav, list):
        kept = [_existing(item, pages) for item in nav]
        return [item for item in kept if item]
    if isinstance(nav, dict):
        return {title: inner for title, item in nav.items() if (inner := _existing(item, pages))}
    return nav if nav in pages else None
