"""What the documents say is true: commands exist, links lead somewhere, shown recipes load."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from domainbridge.build.recipe import parse_recipe, recipe_class, recipe_keys_page
from domainbridge.cli.app import app

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])


def fenced(page: Path, language: str = "") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    commands = get_command(app).commands
    for line in re.findall(r"(?:^|`|\$ )domainbridge ([a-z]+(?: [a-z]+)?)", page.read_text(), re.MULTILINE):
        verb, _, second = line.partition(" ")
        assert verb in commands, f"domainbridge {line}"
        if verb in ("recipes", "data", "hub"):
            assert second in commands[verb].commands, f"domainbridge {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    runner = CliRunner()
    for verb, rest in re.findall(r"^domainbridge (run|plan|predict|evaluate)\b(.*)$", page.read_text(), re.MULTILINE):
        known = runner.invoke(app, [verb, "--help"]).output
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in known, f"domainbridge {verb} {option}"


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
