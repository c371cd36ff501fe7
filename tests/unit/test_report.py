"""The report's parts: intervals, collapse, sentences, curves, disagreement, several seeds."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from domainbridge.errors import RunFolderError
from domainbridge.report.bootstrap import LEVEL, RESAMPLES, bootstrap, image_iou
from domainbridge.report.comparison import compare, compare_tests
from domainbridge.report.curves import charts
from domainbridge.report.disagreement import disagreements, two_paths
from domainbridge.report.page import MOST_BYTES, render
from domainbridge.report.pictures import most_changed
from domainbridge.report.run_facts import RunFacts, read_run
from domainbridge.report.seeds import seed_groups
from domainbridge.report.shares import collapses, target_shares
from domainbridge.report.verdict import verdict
from domainbridge.report.write import write_report
from domainbridge.seeding import numpy_generator
from run_folder import CLASSES, write_run

ALL = np.ones(3, bool)


def random_counts(images: int, seed: int, right: int = 200) -> np.ndarray:
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 60, (images, 4, 4))
    counts[:, range(3), range(3)] += generator.integers(0, right, (images, 3))
    return counts


def plain_iou(matrix: np.ndarray) -> list[float]:
    """Of one confusion matrix, in plain Python."""
    result = []
    for k in range(3):
        right = int(matrix[k, k])
        union = int(matrix[k, :].sum()) + int(matrix[:3, k].sum()) - right
        result.append(100 * right / union if union else math.nan)
    return result


def test_the_bootstrap_is_that_of_a_plain_loop() -> None:
    counts, before = random_counts(7, 0), random_counts(7, 1, right=100)
    draws = numpy_generator(0, "bootstrap", 7).multinomial(7, np.full(7, 1 / 7), RESAMPLES)
    means, gains, classes = [], [], []
    for draw in draws:
        sums = [sum(int(n) * part[i] for i, n in enumerate(draw)) for part in (counts, before)]
        now, then_ = plain_iou(sums[0]), plain_iou(sums[1])
        means.append(sum(now) / 3)
        gains.append(sum(now) / 3 - sum(then_) / 3)
        classes.append(now[1] - then_[1])
    tail = (1 - LEVEL) / 2
    scored, gain = bootstrap(counts, ALL), bootstrap(counts, ALL, before)
    assert scored.miou.value == pytest.approx(sum(plain_iou(counts.sum(0))) / 3)
    assert (scored.miou.low, scored.miou.high) == pytest.approx(np.quantile(means, [tail, 1 - tail]))
    assert (gain.miou.low, gain.miou.high) == pytest.approx(np.quantile(gains, [tail, 1 - tail]))
    assert (gain.iou[1].low, gain.iou[1].high) == pytest.approx(np.quantile(classes, [tail, 1 - tail]))


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    before = random_counts(20, 2)
    after = before.copy()
    after[:, range(3), range(3)] += 5  # a little better on every image
    gain, alone = bootstrap(after, ALL, before).miou, bootstrap(after, ALL).miou
    assert 0 < gain.low <= gain.value <= gain.high
    assert gain.high - gain.low < (alone.high - alone.low) / 4


def test_absent_and_excluded_classes_have_no_part_in_the_mean() -> None:
    counts = random_counts(5, 3)
    counts[:, 2], counts[:, :, 2] = 0, 0
    scored = bootstrap(counts, np.array([True, False, True]))
    assert scored.miou.value == pytest.approx(plain_iou(counts.sum(0))[0])
    assert not scored.iou[2].known
    assert bootstrap(np.zeros((0, 4, 4), np.int64), ALL).miou.known is False
    assert image_iou(counts, ALL).shape == (5,)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run: source-only, both paths, distillation; ``fog`` has labels, ``rain`` has none."""
    return write_run(tmp_path / "run", {"source-only": 0.6, "r1-cut": 0.7, "r1-class": 0.65, "r1-distill": 0.8})


def texts(folder: Path) -> list[str]:
    return [sentence.text for sentence in verdict(read_run(folder))]


def test_a_gain_is_told_with_its_interval(run: Path) -> None:
    first = texts(run)[0]
    assert first.startswith("Adaptation helped on fog, 12 images: mIoU ")
    assert "95 % interval +" in first
    assert any("rain has no labels" in text for text in texts(run))


def test_no_gain_is_told_first_with_the_class_that_paid(tmp_path: Path) -> None:
    same = write_run(tmp_path / "same", {"source-only": 0.7, "r1-distill": 0.7})
    assert "Adaptation did not help clearly on fog" in texts(same)[0]
    assert "the interval includes 0" in texts(same)[0]
    worse = write_run(tmp_path / "worse", {"source-only": 0.8, "r1-distill": 0.6})
    assert "it hurt on fog" in texts(worse)[0]
    paid = write_run(tmp_path / "paid", {"source-only": 0.6, "r1-distill": 0.9}, weak={"r1-distill": "box"})
    assert any(text.startswith("Classes that paid on fog (IoU, points): box -") for text in texts(paid))


def test_a_collapse_is_named_before_the_gain(tmp_path: Path) -> None:
    lost = write_run(tmp_path / "lost", {"source-only": 0.6, "r1-distill": 0.8}, missing={"r1-distill": "box"})
    assert texts(lost)[0].startswith("Collapse on fog: box has vanished, 0.0 % of the pixels; source-only predicted ")
    assert any(text.startswith("Collapse on rain: box has vanished") for text in texts(lost)), "without labels too"
    full = write_run(tmp_path / "full", {"source-only": 0.6, "r1-distill": 0.6}, only={"r1-distill": "sky"})
    assert texts(full)[0].startswith(
        "Collapse on fog: sky swallows the images, 100.0 % of the pixels; the labels have "
    )


def test_a_class_that_was_never_predicted_is_no_collapse(tmp_path: Path) -> None:
    missing = {"source-only": "box", "r1-distill": "box"}
    folder = write_run(tmp_path / "run", {"source-only": 0.6, "r1-distill": 0.8}, missing=missing)
    assert texts(folder)[0].startswith("Adaptation helped")
    assert any(text.startswith("Predicted hardly anywhere on fog: box (the labels have") for text in texts(folder))
    facts = read_run(folder)
    shares = target_shares(facts, "rain")
    assert shares is not None
    assert [item.evidence for item in collapses(shares, "r1-distill", "source-only")] == ["source"]


def test_a_run_without_a_baseline_or_with_nothing_else_says_so(tmp_path: Path) -> None:
    alone = write_run(tmp_path / "alone", {"r1-distill": 0.8})
    assert "no stage source-only to compare with" in texts(alone)[0]
    begun = write_run(tmp_path / "begun", {"source-only": 0.8}, final="r1-distill")
    assert "The run is not finished: the figures here are those of source-only" in texts(begun)[0]
    assert "Only source-only is scored so far" in texts(begun)[1]
    half = write_run(tmp_path / "half", {"source-only": 0.8, "r1-cut": 0.6}, final="r1-distill")
    assert texts(half)[1].startswith("So far, r1-cut on fog")
    assert not any("did not help" in text for text in texts(half))


def test_a_folder_of_an_earlier_version_has_no_intervals_and_says_so(run: Path) -> None:
    for path in [*run.glob("*/evaluation-images.npz"), run / "validation-images.npz", run / "data-check.json"]:
        path.unlink()
    facts = read_run(run)
    score = compare(facts)["fog"]["r1-distill"]
    assert math.isnan(score.scores.miou.low)
    assert score.gain is not None
    assert score.gain.miou.value > 1
    assert texts(run)[0].startswith("Adaptation helped on fog")
    assert any("No intervals" in text for text in texts(run))
    assert "95 % interval" not in texts(run)[0]
    assert "<h2>Pictures" not in render([facts])


def test_counts_of_other_scores_are_not_used(run: Path) -> None:
    path = run / "r1-distill/evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "another"}))
    facts = read_run(run)
    assert facts.stages["r1-distill"].images is None
    assert facts.stages["r1-cut"].images is not None


@pytest.mark.parametrize("name", ["evaluation-images.npz", "done.json", "metrics.jsonl", "label_free.json"])
def test_damaged_files_leave_a_report(run: Path, name: str) -> None:
    for content in (b"", b"[1", b"\xff\x00", b"PK\x03\x04 no zip"):
        (run / "r1-distill" / name).write_bytes(content)
        assert "Adaptation helped" in render([read_run(run)])


def test_paths_that_disagree(run: Path) -> None:
    by_target = {item.target: item for item in disagreements(read_run(run))}
    assert set(by_target) == {"fog", "rain"}
    facts = read_run(run)
    one, other = (facts.stages[name].counts("fog") for name in ("r1-cut", "r1-class"))
    assert one is not None
    assert other is not None
    different = np.mean([(one.maps[i] != other.maps[i]).mean() for i in one.maps])
    item = by_target["fog"]
    assert item.share == pytest.approx(different)
    assert 0 < sum(share for _, _, share in item.pairs) <= item.share + 1e-9
    assert all(a != b for a, b, _ in item.pairs)


def test_an_extended_path_stands_for_its_path(tmp_path: Path) -> None:
    paths = two_paths(read_run(write_run(tmp_path / "run", {"r1-cut": 0.5, "r1-class": 0.6, "r1-cut-extended": 0.7})))
    assert paths is not None
    assert [stage.name for stage in paths] == ["r1-cut-extended", "r1-class"]


def test_pictures_show_the_largest_gains_and_losses(run: Path) -> None:
    facts = read_run(run)
    shown = most_changed(facts, "fog", 2)
    assert shown is not None
    assert shown.labeled
    gains = [float(row.text.split("image ")[1].split()[0]) for row in (*shown.gained, *shown.lost)]
    assert gains[0] == max(gains)
    assert [caption for caption, _ in shown.gained[0].columns] == [
        "image",
        "source-only",
        "r1-distill",
        "truth",
        "difference",
    ]
    unlabeled = most_changed(facts, "rain", 2)
    assert unlabeled is not None
    assert [caption for caption, _ in unlabeled.gained[0].columns][-1] == "difference"
    assert "truth" not in dict(unlabeled.gained[0].columns)


def test_curves_hold_every_stage_one_after_the_other(run: Path) -> None:
    drawn = {chart.title: chart for chart in charts(read_run(run))}
    assert set(drawn) == {"Losses", "Pseudo-label share", "Learning rate"}
    assert [name for _, _, name in drawn["Losses"].stages] == ["source-only", "r1-cut", "r1-class", "r1-distill"]
    (line,) = drawn["Losses"].lines
    across = [float(point.split(",")[0]) for part in line.parts for point in part.split()]
    assert across == sorted(across)


def test_seeds_of_one_recipe_have_mean_and_spread(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / str(seed), {"source-only": 0.6, "r1-distill": right}, seed=seed)
        for seed, right in enumerate((0.7, 0.8, 0.9))
    ]
    runs: list[RunFacts] = [read_run(folder) for folder in folders]
    tables = [compare(facts) for facts in runs]
    (group,) = seed_groups(runs, tables)
    assert group.seeds == ("0", "1", "2")
    spread = next(part for part in group.spreads if part.stage == "r1-distill")
    values = [table["fog"]["r1-distill"].scores.miou.value for table in tables]
    assert spread.text == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    other = write_run(tmp_path / "other", {"source-only": 0.6}, recipe={"rounds": 1})
    assert seed_groups([runs[0], read_run(other)], [tables[0], compare(read_run(other))]) == []


def test_foreign_text_is_no_markup(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", {"source-only": 0.6, "r1-distill": 0.8}, prefix="<script>alert(1)</script>&\x1b"
    )
    page = render([read_run(folder)])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in page
    assert "\x1b" not in page


def test_scores_without_labels_are_shown(run: Path) -> None:
    content = {"targets": {"rain": {"entropy": 26.36, "<b>": 1.5, "none": None, "predicted_miou": 31}}}
    (run / "r1-distill/label_free.json").write_text(json.dumps(content))
    page = render([read_run(run)])
    assert "Scores without labels" in page
    assert "26.4" in page
    assert page.index(">predicted_miou<") < page.index("&lt;b&gt;")


def test_baselines_beside_the_method_are_no_result(tmp_path: Path) -> None:
    stages = {"source-only": 0.6, "r1-cut": 0.7, "oracle": 0.95, "adabn": 0.65}
    facts = read_run(write_run(tmp_path / "run", stages, final="r1-distill"))
    assert facts.latest is not None
    assert facts.latest.name == "r1-cut"
    assert set(compare(facts)["fog"]) == set(stages)
    assert "gain of r1-cut</th>" in render([facts])
    alone = read_run(write_run(tmp_path / "alone", {"oracle": 0.9}, final="r1-distill"))
    assert "not finished" in render([alone])


def test_scores_of_test_images_are_shown_with_intervals(run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run, tmp_path / "copy")
    content = json.loads((run / "results.json").read_text())
    facts = read_run(run)
    assert "<h2>Test images" not in render([facts])
    scores = content["stages"]["r1-distill"]["targets"]["fog"]
    content["stages"]["r1-distill"]["targets"]["fog"] = scores | {"test": scores | {"miou": 12.345}}
    (run / "results.json").write_text(json.dumps(content))
    page = render([read_run(run)])
    assert "<h2>Test images" in page
    assert "12.3" in page
    # With counts per image, as a run keeps them, scores and gains have intervals.
    for stage in ("source-only", "r1-distill"):
        content["stages"][stage]["targets"]["fog"]["test"] = scores
        shutil.copy(run / stage / "evaluation-images.npz", run / stage / "test-images.npz")
        shutil.copy(run / stage / "evaluation.json", run / stage / "test-evaluation.json")
    (run / "results.json").write_text(json.dumps(content))
    facts = read_run(run)
    tests, table = compare_tests(facts)["fog"], compare(facts)["fog"]
    assert list(tests) == ["source-only", "r1-distill"]
    assert tests["r1-distill"].scores == table["r1-distill"].scores
    assert tests["r1-distill"].gain == table["r1-distill"].gain
    assert tests["r1-distill"].gain is not None


def test_a_page_is_small_and_asks_for_nothing(run: Path) -> None:
    page = render([read_run(run)])
    assert len(page.encode()) < MOST_BYTES
    for text in ("http:", "https:", "<script", "@import", "url("):
        assert text not in page
    assert page.count("data:image/") > 10


def test_nothing_foreign_is_replaced(run: Path, tmp_path: Path) -> None:
    assert write_report([run]) == run / "report.html"
    assert write_report([run]) == run / "report.html"
    letter = tmp_path / "letter.html"
    letter.write_text("<p>Dear Sir")
    with pytest.raises(RunFolderError, match="no report of domainbridge"):
        write_report([run], letter)
    assert letter.read_text() == "<p>Dear Sir"
    with pytest.raises(RunFolderError, match="found a folder"):
        write_report([run], tmp_path)
    with pytest.raises(RunFolderError, match=r"no results\.json"):
        write_report([tmp_path])


def test_the_classes_are_those_of_the_scores(run: Path) -> None:
    shares = target_shares(read_run(run), "fog")
    assert shares is not None
    assert shares.classes == CLASSES
    assert shares.labels is not None
    assert shares.labels.sum() == pytest.approx(1)
    assert all(part.sum() == pytest.approx(1) for part in shares.stages.values())
