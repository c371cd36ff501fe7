"""What the documents say is true: commands exist, links lead somewhere, shown recipes load."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from commands import options_of, resolved, shell_lines, shown_commands

import domainbridge
from domainbridge.build.recipe import load_recipe, parse_recipe, recipe_class, recipe_keys_page
from domainbridge.config.load import shipped_recipes

PROJECT = Path(__file__).parents[2]
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])


def fenced(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        text = (page.parent / target if target else page).read_text()
        slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text)]
        assert heading in slugs, f"{target}#{heading}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_options_and_keys_exist(page: Path) -> None:
    """Every command that a page shows, without running the command; those of the tutorial are run elsewhere."""
    for arguments in shown_commands(page):
        command, rest = resolved(arguments)
        known = options_of(command)
        for option in (word for word in rest if word.startswith("--")):
            assert option.partition("=")[0] in known, f"domainbridge {' '.join(arguments)}: {option}"
        if command.name in ("run", "plan", "check", "preview", "cache", "pack", "stats") and rest:
            shipped = rest[0] if rest[0] in shipped_recipes() else "quickstart"
            keys = [word for word in rest[1:] if re.fullmatch(r"[a-z][\w.-]*=.+", word) and "..." not in word]
            load_recipe(shipped, [key for key in keys if key.partition("=")[0] not in ("data_root", "init")])


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`domainbridge plan RECIPE` and `domainbridge-other`\n\n```sh\n$ domainbridge run a.yaml \\\n"
        "    'x=[1, 2]'   # why\ntorchrun --nproc-per-node 2 -m domainbridge run b.yaml\n```\n"
        "```python\ndomainbridge.adapt()\n```\n"
    )
    assert shown_commands(page) == [["run", "a.yaml", "x=[1, 2]"], ["run", "b.yaml"], ["plan", "RECIPE"]]
    assert shell_lines(page, "sh")[0] == "domainbridge run a.yaml 'x=[1, 2]'"
    with pytest.raises(KeyError):
        resolved(["data", "chekc"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_uses_names_that_exist(page: Path) -> None:
    """``import domainbridge`` in a page's Python: every name of the package is one of the interface."""
    for code in fenced(page, "python"):
        if "import domainbridge\n" not in code:
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "domainbridge":
                assert node.attr in domainbridge.__all__, f"domainbridge.{node.attr}"


def test_sections_shown_alone_are_sections_of_a_recipe() -> None:
    known = set(recipe_class("ddb").model_fields)
    for page in PAGES:
        for text in fenced(page, "yaml"):
            if "sources:" not in text and isinstance(tree := yaml.safe_load(text), dict):
                assert set(tree) <= known, f"{page.name}: {set(tree) - known}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"make ([a-z-]+)", "\n".join(fenced(page)))) <= targets


def test_shown_recipes_load() -> None:
    shown = [text for page in PAGES for text in fenced(page, "yaml") if "sources:" in text]
    assert shown
    for text in shown:
        parse_recipe(yaml.safe_load(text))


def test_the_page_of_keys_is_that_of_the_schema() -> None:
    """After a changed schema: `domainbridge recipes keys > docs/keys.md`."""
    assert (PROJECT / "docs/keys.md").read_text() == recipe_keys_page()


def test_every_key_named_in_the_documents_is_one() -> None:
    recipe = recipe_class("ddb")
    sections = set(recipe.model_fields)
    for page in PAGES:
        for key in re.findall(r"`((?:[a-z_]+\.)+[a-z_]+)(?:[:=][^`]*)?`", page.read_text()):
            section, *rest = key.split(".")
            if section not in sections or section in ("stages", "sources", "targets"):
                continue
            model = recipe.model_fields[section].annotation
            for part in rest:
                assert part in model.model_fields, f"{page.name}: {key}"
                model = model.model_fields[part].annotation
