"""The benchmark of methods: its recipes have one budget, its tables are those of the run folders."""

import copy
import shutil
from pathlib import Path
from statistics import mean

import pytest
import yaml
from benchmarks.methods import budget_of, combinations, main, page, read_rows, recipe_tree, settings

from domainbridge.build.recipe import parse_recipe
from domainbridge.run.results import read_results
from run_folder import write_run

GIVEN = settings()


@pytest.mark.parametrize("method", list(GIVEN["methods"]))
def test_every_method_has_the_same_start_and_the_same_budget(method: str) -> None:
    tried = combinations(GIVEN, list(GIVEN["data"]), [method])
    assert tried
    for data, _ in tried:
        recipe = parse_recipe(recipe_tree(GIVEN, data, method, 3))
        start = GIVEN["common"]["training"]["steps"]
        assert budget_of(recipe) == GIVEN["passes"] + (start if method == "oracle" else 0)
        assert recipe.seed == 3
        assert recipe.training.steps == start
        assert recipe.name == f"{data}.{method}.3"


def test_the_table_is_that_of_the_finished_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for seed in (0, 1):
        write_run(
            runs / f"city-to-camvid.ddb.{seed}",
            {"source-only": 0.5, "adabn": 0.6, "r1-distill": 0.9},
            seed=seed,
        )
    write_run(runs / "city-to-camvid.oracle.0", {"source-only": 0.5, "adabn": 0.6, "oracle": 0.95}, final="adabn")
    unfinished = write_run(runs / "city-to-camvid.self-training-cut.0", {"source-only": 0.5}, final="self-training")
    row, oracle = read_rows(runs, GIVEN)
    assert oracle.final == (read_results(runs / "city-to-camvid.oracle.0").stages["oracle"].targets["fog"].miou,)
    results = [read_results(runs / f"city-to-camvid.ddb.{seed}").stages for seed in (0, 1)]
    assert row.final == tuple(stages["r1-distill"].targets["fog"].miou for stages in results)
    assert row.minutes == (65 / 60, 65 / 60)

    document = tmp_path / "page.md"
    document.write_text("# Title\n\n<!-- tables -->\n\nold")
    assert main(["--out", str(runs), "--no-runs", "--page", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("# Title\n\n<!-- tables -->\n\n## city-to-camvid")
    assert "old" not in text
    gain = mean(final - before for final, before in zip(row.final, row.source_only, strict=True))
    assert f"{gain:+.1f} ± " in text
    assert text.count("DDB, one round") == 1
    shutil.rmtree(unfinished)
    assert page(read_rows(runs, GIVEN), GIVEN) in text


def test_a_method_changes_what_it_names_and_nothing_else() -> None:
    given = copy.deepcopy(GIVEN)
    tree = recipe_tree(given, "city-to-cityscapes", "ddb", 0)
    assert tree["training"] == {**given["common"]["training"], "adapt_batchnorm": "target"}
    shipped = recipe_tree(given, "city-to-camvid", "ddb-masked", 0)["targets"][0]
    (few,) = recipe_tree(given, "city-to-camvid", "ddb-masked-few", 0)["targets"]
    assert {key: few[key] for key in shipped} == shipped
    assert few["few"]["split"] == "few.txt"
    assert given == yaml.safe_load(yaml.safe_dump(GIVEN)), "the settings stay as they are"
