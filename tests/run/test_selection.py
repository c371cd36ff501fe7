"""Scores without labels in a run: written after each training stage, kept, made again; selection; suggestions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.label_free import Scored, report, spearman
from benchmarks.label_free import main as compare_scores
from safetensors.torch import load_file

from domainbridge.build.datasets import open_data
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.errors import DataError, RecipeError, RunFolderError
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.graph import plan, stage_graph
from domainbridge.run.label_free import reference_stage
from domainbridge.run.results import Results, read_results
from domainbridge.run.run import run_recipe
from domainbridge.run.selection import candidates, describe_selection, selected_stage
from domainbridge.run.suggest import models_to_compare, suggest

TRAINED = ["source-only", *(f"r{number}-{part}" for number in (1, 2) for part in ("cut", "class", "distill"))]
ALWAYS = {
    *("confidence", "entropy", "flip_consistency", "jitter_consistency", "class_shift", "prototype_agreement"),
    "predicted_accuracy",
}


class Recorder(NullCallback):
    def __init__(self) -> None:
        self.actions: dict[str, str] = {}

    def stage_begins(self, planned: Any) -> None:
        self.actions[planned.name] = planned.status.action


def run(tree: dict[str, Any], folder: Path, **options: Any) -> dict[str, str]:
    recorder = Recorder()
    assert run_recipe(parse_recipe(tree), folder, [recorder], **options)
    return recorder.actions


def label_free(folder: Path, stage: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / stage / "label_free.json").read_text())
    return content


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, generated_data: Path) -> Path:
    from tiny_domain import RECIPE

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    training = {**RECIPE["training"], "steps": 12, "learning_rate": 3e-3}
    run({**RECIPE, "training": training, "data_root": str(generated_data)}, folder)
    return folder


@pytest.fixture
def tree(recipe_tree: dict[str, Any]) -> dict[str, Any]:
    recipe_tree["training"] |= {"steps": 12, "learning_rate": 3e-3}
    return recipe_tree


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def test_every_training_stage_has_scores(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    for position, stage in enumerate(TRAINED):
        content = label_free(finished, stage)
        assert content["reference"] == (TRAINED[position - 1] if position else None)
        assert content["images"] == {"fog": 4}
        assert content["source_images"] == 1
        scores = content["targets"]["fog"]
        assert set(scores) >= ALWAYS
        assert ("agreement" in scores) == (position > 0)
        assert all(0 <= value <= 100 for value in scores.values())
        assert results["stages"][stage]["label_free"] == content["targets"]
    assert "label_free" not in results["stages"]["r1-prototypes"]
    assert not (finished / "r1-prototypes" / "label_free.json").exists()
    assert Results.from_json(results).to_json() == results


def test_results_of_earlier_versions_are_read(copied: Path) -> None:
    content = json.loads((copied / "results.json").read_text())
    for stage in content["stages"].values():
        stage.pop("label_free", None)
    (copied / "results.json").write_text(json.dumps(content))
    assert read_results(copied).stages["r1-cut"].label_free == {}


def test_scores_are_kept_and_made_again(copied: Path, tree: dict[str, Any]) -> None:
    """Another number of images changes the scores alone: no stage trains, and the true scores stay as they are."""
    times = {stage: (copied / stage / "label_free.json").stat().st_mtime_ns for stage in TRAINED}
    truth = (copied / "r1-cut" / "evaluation.json").stat().st_mtime_ns
    assert set(run(tree, copied).values()) == {"done"}
    assert {stage: (copied / stage / "label_free.json").stat().st_mtime_ns for stage in TRAINED} == times
    tree["evaluation"] = {"label_free": {"images": 2}}
    assert set(run(tree, copied).values()) == {"done"}
    assert label_free(copied, "r1-cut")["images"] == {"fog": 2}
    assert (copied / "r1-cut" / "evaluation.json").stat().st_mtime_ns == truth


def test_the_same_scores_again(finished: Path, copied: Path, tree: dict[str, Any]) -> None:
    (copied / "r1-class" / "label_free.json").write_text("{")
    (copied / "r2-cut" / "label_free.json").unlink()
    run(tree, copied)
    for stage in ("r1-class", "r2-cut"):
        assert label_free(copied, stage) == label_free(finished, stage)


def test_without_images_there_are_no_scores(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["evaluation"] = {"label_free": {"images": 0}}
    run(tree, tmp_path / "run", until="source-only")
    assert not (tmp_path / "run" / "source-only" / "label_free.json").exists()
    assert read_results(tmp_path / "run").stages["source-only"].label_free == {}
    with pytest.raises(RecipeError, match=r"selection: .*evaluation\.label_free\.images"):
        parse_recipe({**tree, "selection": "agreement"})


def test_no_stage_changes_by_these_keys(finished: Path, tree: dict[str, Any]) -> None:
    for change in ({"evaluation": {"label_free": {"images": 9}}}, {"selection": "entropy"}):
        recipe = parse_recipe({**tree, **change})
        nodes = stage_graph(recipe, open_data(recipe))
        assert {item.status.action for item in plan(nodes, finished)} == {"done"}


def with_scores(folder: Path, values: dict[str, float]) -> None:
    """Give stages another confidence, as if they had been scored so."""
    for stage, value in values.items():
        path = folder / stage / "label_free.json"
        content = json.loads(path.read_text())
        content["targets"]["fog"]["confidence"] = value
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(("first", "second", "chosen"), [(60, 50, "r1-distill"), (50, 60, "r2-distill")])
def test_selection_publishes_the_best_student(
    first: float, second: float, chosen: str, copied: Path, tree: dict[str, Any]
) -> None:
    with_scores(copied, {"r1-distill": first, "r2-distill": second, "r1-cut": 99})
    tree["selection"] = "confidence"
    assert set(run(tree, copied).values()) == {"done"}
    assert read_results(copied).final == chosen
    expected, published = weights(copied / chosen / "model"), weights(copied / "model")
    assert all(torch.equal(expected[name], published[name]) for name in expected)
    tree["selection"] = "last"
    run(tree, copied)
    assert read_results(copied).final == "r2-distill"


@pytest.mark.parametrize(("first", "second", "chosen"), [(60, 50, "r1-distill"), (50, 60, "r2-distill")])
def test_held_out_images_score_the_selected_stage(
    first: float, second: float, chosen: str, copied: Path, tree: dict[str, Any]
) -> None:
    with_scores(copied, {"r1-distill": first, "r2-distill": second})
    tree |= {"selection": "confidence", "evaluation": {**tree["evaluation"], "hold_out": 0.3}}
    run(tree, copied)
    results = read_results(copied)
    assert results.final == chosen
    tested = {name for name, stage in results.stages.items() if stage.tests}
    assert tested - {"source-only"} == {chosen}
    assert (chosen == "r1-distill") == (copied / "r1-distill" / "test-evaluation.json").exists()


def test_a_selected_stage_is_tested_with_the_last_one(copied: Path, tree: dict[str, Any]) -> None:
    """Only the last stage's score says that an earlier one is the run's."""
    with_scores(copied, {"r1-distill": 100})
    tree |= {"selection": "confidence", "evaluation": {**tree["evaluation"], "hold_out": 0.3}}
    shutil.rmtree(copied / "r2-distill")
    actions = run(tree, copied)
    assert {name for name, action in actions.items() if action == "run"} == {"r2-distill"}
    results = read_results(copied)
    assert results.final == "r1-distill"
    assert results.stages["r1-distill"].tests["fog"].images == 1
    assert results.stages["r2-distill"].tests == {}


def test_the_adabn_baseline_is_scored_beside_source_only(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["adabn"] = True
    run(tree, tmp_path / "run", until="r1-cut")
    assert label_free(tmp_path / "run", "adabn")["reference"] == "source-only"
    assert label_free(tmp_path / "run", "r1-cut")["reference"] == "source-only"
    assert set(read_results(tmp_path / "run").stages["adabn"].label_free["fog"]) >= ALWAYS


def test_the_plan_tells_the_selection(copied: Path, tree: dict[str, Any]) -> None:
    with_scores(copied, {"r1-distill": 61, "r2-distill": 50})
    recipe = parse_recipe({**tree, "selection": "confidence"})
    nodes = stage_graph(recipe, open_data(recipe))
    assert candidates(nodes) == ["r1-distill", "r2-distill"]
    text = describe_selection(nodes, recipe, copied)
    assert "largest confidence" in text
    assert "r1-distill 61.0, r2-distill 50.0" in text
    (copied / "r2-distill" / "label_free.json").unlink()
    assert "r2-distill not scored yet" in describe_selection(nodes, recipe, copied)
    assert selected_stage(nodes, recipe, copied) == "r2-distill", "the last one until all are scored"
    less = recipe.model_copy(update={"selection": "entropy"})
    assert "least entropy" in describe_selection(nodes, less, copied)
    assert "last stage" in describe_selection(nodes, recipe.model_copy(update={"selection": "last"}), copied)


def test_a_damaged_model_is_noticed_before_it_is_scored(copied: Path, tree: dict[str, Any]) -> None:
    (copied / "r1-class" / "label_free.json").unlink()
    (copied / "r1-cut" / "model" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunFolderError, match="r1-cut, which is to be scored without labels"):
        run(tree, copied)


def test_the_reference_is_the_training_stage_before(finished: Path, tree: dict[str, Any]) -> None:
    recipe = parse_recipe(tree)
    nodes = stage_graph(recipe, open_data(recipe))
    named = {node.name: node for node in nodes}
    before = reference_stage(named["r1-distill"], nodes, finished)
    assert before is not None
    assert before.name == "r1-class"
    assert reference_stage(named["source-only"], nodes, finished) is None
    assert reference_stage(named["r1-class"], nodes, finished / "elsewhere") is None


def test_an_extension_is_compared_as_the_stage_before_was(finished: Path, copied: Path, tree: dict[str, Any]) -> None:
    recipe = parse_recipe({**tree, "stages": {"r2-cut": {"extend": 2}}})
    nodes = stage_graph(recipe, open_data(recipe))
    named = {node.name: node for node in nodes}
    before = [reference_stage(named[name], nodes, finished) for name in ("r2-cut", "r2-cut-extended", "r2-class")]
    assert [node and node.name for node in before] == ["r1-distill", "r1-distill", "r2-cut"]
    assert models_to_compare(nodes, finished) == ["r2-cut", "r2-class"]
    shutil.copytree(copied / "r2-cut", copied / "r2-cut-extended")
    assert models_to_compare(nodes, copied) == ["r2-class", "r2-cut-extended"]


def test_models_to_compare(finished: Path, copied: Path, tree: dict[str, Any]) -> None:
    nodes = stage_graph(parse_recipe(tree), None)
    assert models_to_compare(nodes, finished) == ["r2-cut", "r2-class"]
    shutil.rmtree(copied / "r2-class")
    assert models_to_compare(nodes, copied) == ["r1-cut", "r1-class"]
    for stage in TRAINED[2:]:
        shutil.rmtree(copied / stage, ignore_errors=True)
    assert models_to_compare(nodes, copied) == ["r1-cut"]
    with pytest.raises(RunFolderError, match="no training stage is finished"):
        models_to_compare(nodes, copied / "nowhere")


def test_suggestions_are_the_same_twice(finished: Path, generated_data: Path, tmp_path: Path) -> None:
    names = suggest(finished, tmp_path / "out", 4)
    assert len(set(names)) == 4
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert suggest(finished, tmp_path / "out", 4) == names, "its own files are replaced"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
    images = generated_data / "target" / "images"
    listing = list_folder(images, None, FolderRule(split=tmp_path / "out" / "split.txt"))
    assert [path.name for path in listing.images] == names
    (tmp_path / "out" / "label-studio.json").write_text("labels of a person")
    with pytest.raises(DataError, match=r"label-studio\.json"):
        suggest(finished, tmp_path / "out", 4)
    assert (tmp_path / "out" / "label-studio.json").read_text() == "labels of a person"


def test_several_targets_need_a_name(copied: Path) -> None:
    import yaml

    path = copied / "recipe.yaml"
    content = yaml.safe_load(path.read_text())
    content["targets"].append({"name": "again", "root": "target", "images": "images"})
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match="give --target with one of fog, again"):
        suggest(copied, copied / "out", 2)
    assert len(suggest(copied, copied / "out", 2, target="again")) == 2
    with pytest.raises(RunFolderError, match="not a run folder"):
        suggest(copied / "r1-cut", copied / "other", 2)


def test_ranks_of_equal_values_are_shared() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 50]) == pytest.approx(1)
    assert spearman([4, 3, 2, 1], [10, 20, 30, 50]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman([1, 1, 1], [1, 2, 3]) is None


def test_the_report_says_what_a_selection_is_worth() -> None:
    scored = [
        Scored("mine-0", "source-only", "fog", False, 10, {"entropy": 50}),
        Scored("mine-0", "r1-distill", "fog", True, 30, {"entropy": 20, "agreement": 90}),
        Scored("mine-0", "r2-distill", "fog", True, 26, {"entropy": 30, "agreement": 95}),
    ]
    text = report(scored)
    assert "| entropy | 1.00 (1.00) |" in text
    assert "| entropy | +4.00 (+4.00) | +4.00 (+4.00) |" in text
    assert "| agreement | +0.00 (+0.00) | +0.00 (+0.00) |" in text
    assert "| best, by labels | +4.00 (+4.00) | +4.00 (+4.00) |" in text


def test_the_benchmark_reads_finished_runs(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert compare_scores([str(finished), "--images", "4", "--out", str(tmp_path / "scores.json")]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    output = capsys.readouterr().out
    assert "scoring tiny/r2-distill" in output
    assert "(7 stages of 1 runs)" in output
    kept = json.loads((tmp_path / "scores.json").read_text())
    (last,) = list(kept.values())[-1]
    assert last["scores"] == label_free(finished, "r2-distill")["targets"]["fog"]
    assert compare_scores([str(finished), "--images", "4", "--out", str(tmp_path / "scores.json")]) == 0
    assert "scoring" not in capsys.readouterr().out
