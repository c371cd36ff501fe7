"""No name of ours that the field has another word for: the left column of the glossary's history occurs nowhere."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("src", "benchmarks", "scripts", "examples") for path in (PROJECT / folder).rglob("*.py")
)
TESTS = sorted((PROJECT / "tests").rglob("*.py"))
IDENTIFIERS = {
    *("Opinion", "said", "words", "_ratings", "nearness", "absent_compete", "confidence_share", "weights_on"),
    *("Enlarged", "row_strips", "touched_cells", "feature_geometry", "falling", "rising", "retake_statistics"),
    *("_still", "found", "bad", "Plan", "Verdict", "redone", "ModelCard", "spaces", "own", "then", "Place", "Samples"),
    *("Concatenated", "stored", "opened", "stamp", "_Part", "_leads_back", "max_class_share", "tries", "accumulate"),
    *("recompute", "head_multiplier", "later_rate", "workers", "leader", "agreed", "gathered"),
    *("Silent", "speaks", "Watcher", "polite_interruption", "refuse_foreign", "check_together", "published_way"),
}
"""Names of variables, parameters, attributes, functions, classes and modules."""
FOREIGN = {"test_model_card.py": {"ModelCard"}}
"""Names of other packages: the hub's reader of a model card."""
PHRASES = (
    *("published way", "fidelity: fixed", "training.statistics", "sampling.balance", "runtime.workers", "optimiser"),
    *("training.recompute", "training.accumulate", "-distil", "LOG.md"),
)
REFUSED_HERE = PROJECT / "src/domainbridge/config/renamed.py"
"""The table of old keys and their new names."""
ALLOWED = {"ddb.py: -distil"}
"""The random stream of a distillation stage keeps the stage's former name, so that results stay."""


def identifiers(path: Path) -> set[str]:
    names = {path.stem}
    for node in ast.walk(ast.parse(path.read_text())):
        names |= {
            getattr(node, key) for key in ("id", "attr", "arg", "name") if isinstance(getattr(node, key, None), str)
        }
    return names


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_names_are_those_of_the_field(path: Path) -> None:
    assert not (identifiers(path) & IDENTIFIERS) - FOREIGN.get(path.name, set())


def test_documents_name_nothing_by_a_former_name() -> None:
    pages = [page for page in (*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")) if page.name != "glossary.md"]
    assert len(pages) > 20
    names = [(page.name, name) for page in pages for name in re.findall(r"`(\w+)`", page.read_text())]
    assert [each for each in names if each[1] in IDENTIFIERS] == []


def test_old_keys_occur_in_the_table_of_old_keys_only() -> None:
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *SOURCES]
    pages = [page for page in pages if page not in (REFUSED_HERE, PROJECT / "docs/glossary.md")]
    uses = {
        f"{page.name}: {phrase}"
        for page in pages
        for phrase in PHRASES
        if re.search(rf"(?<![A-Z]){re.escape(phrase)}\b", page.read_text())
    }
    assert uses == ALLOWED
