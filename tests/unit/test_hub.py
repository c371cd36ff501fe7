"""Models to and from the Hugging Face hub, by a stand-in on this machine; never the network."""

import builtins
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from domainbridge import api
from domainbridge.cli.app import app
from domainbridge.errors import HubError, ModelError
from domainbridge.models.card_file import CARD, front_matter, with_front_matter, write_card
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import DESCRIPTION, WEIGHTS, ModelConfig, save_model
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.report.model_card import plain_card
from domainbridge.tools.hub import local_model, pull, push
from domainbridge.tools.hub_license import license_kind, sharing_terms
from hub_server import OWNER, Hub, running_hub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # between two packages of the hub
FILES = {CARD, DESCRIPTION, WEIGHTS}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with a card; tests that change the folder copy it."""
    torch.manual_seed(0)
    spec = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
    folder = tmp_path_factory.mktemp("hub") / "model"
    colors = ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    save_model(folder, build_segmenter(spec), ModelConfig(spec, "scene", ("ground", "box", "sky"), colors, None))
    write_card(folder, plain_card(folder, "boxes", "Drawn at random."))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty hub, an owner's token and an empty cache."""
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_TOKEN", OWNER)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.chdir(tmp_path)
        yield server


def yes(_: str) -> bool:
    return True


def with_parts(model: Path, folder: Path, parts: dict[str, str | None], license_id: str = "mit") -> Path:
    """A copy whose card names the licenses of its parts."""
    shutil.copytree(model, folder)
    text = (folder / CARD).read_text()
    content = front_matter(text)
    content["domainbridge"] = {"licenses": [{"part": part, "license": name} for part, name in parts.items()]}
    (folder / CARD).write_text(with_front_matter(text, {**content, "license": license_id}))
    return folder


def test_there_and_back(model: Path, hub: Hub, tmp_path: Path) -> None:
    """Private, three files and no other, the same bytes; a loaded model predicts the same."""
    (model.parent / "events.out.tfevents").write_text("no file of the model")
    lines: list[str] = []
    pushed = push(model, "user/boxes", confirm=yes, report=lines.append)
    repository = hub.repositories["user/boxes"]
    assert repository.private
    assert pushed is not None
    assert pushed.commit == repository.sha()
    assert set(repository.commits[-1]) - {".gitattributes"} == FILES
    assert repository.commits[-1][WEIGHTS] == (model / WEIGHTS).read_bytes()
    assert any(line.startswith(f"{WEIGHTS}: ") for line in lines)
    out = pull("user/boxes", tmp_path / "pulled/boxes")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        name: (model / name).read_bytes() for name in FILES
    }
    assert pull("user/boxes", out) == out, "the same model once more is no problem"
    (out / CARD).write_text("my words")
    pull("user/boxes", out)
    assert (out / CARD).read_text() == "my words"
    for name in (CARD, DESCRIPTION):  # as if the first pull had been stopped
        (out / name).unlink()
    assert {path.name for path in pull("user/boxes", out).iterdir()} == FILES
    image = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    loaded = api.load_model("user/boxes", device="cpu")
    assert np.array_equal(loaded.predict(image), api.load_model(model, device="cpu").predict(image))


def test_revisions_and_replacement(model: Path, hub: Hub, tmp_path: Path) -> None:
    first = push(model, "user/boxes", confirm=yes)
    with pytest.raises(ModelError, match=r"has README.md, config.json, model.safetensors; nothing was sent. --replace"):
        push(model, "user/boxes", confirm=yes)
    assert len(hub.repositories["user/boxes"].commits) == 2
    changed = with_parts(model, tmp_path / "changed", {"source": "mit"})
    second = push(changed, "user/boxes", replace=True, confirm=yes)
    assert first is not None
    assert second is not None
    assert first.commit != second.commit
    assert (pull(f"user/boxes@{first.commit}", tmp_path / "old") / CARD).read_bytes() == (model / CARD).read_bytes()
    assert (pull("user/boxes", tmp_path / "new") / CARD).read_bytes() == (changed / CARD).read_bytes()
    with pytest.raises(HubError, match="no such model or revision"):
        pull("user/boxes@v9", tmp_path / "none")


def test_a_dry_run_needs_no_network(model: Path, hub: Hub) -> None:
    lines: list[str] = []
    assert push(model, "user/boxes", dry_run=True, confirm=yes, report=lines.append) is None
    assert "dry run: nothing was sent to user/boxes (private)" in lines
    assert hub.requests == []


def test_an_existing_folder_costs_no_network(model: Path, hub: Hub, tmp_path: Path) -> None:
    """Neither do a path whose first folder exists, and forms that are no names of the hub."""
    shutil.copytree(model, tmp_path / "user/boxes")
    assert api.load_model("user/boxes", device="cpu").classes == ("ground", "box", "sky")
    for path in ("user/other", "runs/boxes/model", "/user/boxes", "./a/b", "boxes", "../user/boxes"):
        assert local_model(path) == Path(path)
    with pytest.raises(ModelError, match=r"user/other: not a model folder"):
        api.load_model("user/other")
    assert hub.requests == []


def test_the_cache_serves_when_the_hub_is_gone(model: Path, hub: Hub) -> None:
    push(model, "user/boxes", confirm=yes)
    folder = local_model("user/boxes")
    hub.broken = True
    assert local_model("user/boxes") == folder
    with pytest.raises(
        HubError,
        match=r"^user/cubes: no such folder here, and as a model of the hub: .*the exchange with the hub failed",
    ):
        local_model("user/cubes")


def test_without_the_package(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def missing(name: str, *rest: Any, **others: Any) -> Any:
        if name.split(".")[0] == "huggingface_hub":
            raise ModuleNotFoundError(name)
        return plain(name, *rest, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (lambda: local_model("user/boxes"), lambda: push(model, "user/boxes", confirm=yes)):
        with pytest.raises(HubError, match=r'pip install "domainbridge\[hub\]"'):
            call()
    assert local_model(model) == model


def test_others_neither_read_nor_write(model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    push(model, "user/boxes", confirm=yes)
    monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    with pytest.raises(HubError, match="hf auth login"):
        pull("user/boxes", tmp_path / "taken")
    with pytest.raises(HubError, match="the hub refuses"):
        push(model, "user/new", confirm=yes)
    assert set(hub.repositories) == {"user/boxes"}
    assert not (tmp_path / "taken").exists()


def test_nothing_foreign_is_overwritten(model: Path, hub: Hub, tmp_path: Path) -> None:
    push(model, "user/boxes", confirm=yes)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / WEIGHTS).write_bytes(b"of something else")
    for out in ("mine", "file", "other"):
        with pytest.raises(ModelError, match=rf"{out}: "):
            pull("user/boxes", tmp_path / out)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_damaged_or_foreign_model_is_refused(model: Path, hub: Hub, tmp_path: Path) -> None:
    push(model, "user/boxes", confirm=yes)
    repository = hub.repositories["user/boxes"]
    repository.commits.append({**repository.commits[-1], WEIGHTS: b"changed on the way"})
    with pytest.raises(
        ModelError, match=r"user/boxes on the hub is no model of domainbridge, or a damaged one: .*damaged"
    ):
        pull("user/boxes", tmp_path / "damaged")
    repository.commits.append({"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(ModelError, match="is no model of domainbridge"):
        local_model("user/boxes")


class TestLicensesAndCards:
    def test_no_card_no_push(self, model: Path, hub: Hub, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(model, folder)
        for card, message in ((None, "no model card"), ("# Boxes\n", "no metadata"), ("---\na: [\n---\n", "no YAML")):
            if card is None:
                (folder / CARD).unlink()
            else:
                (folder / CARD).write_text(card)
            with pytest.raises(ModelError, match=message):
                push(folder, "user/boxes", confirm=yes)
        assert hub.requests == []

    def test_a_public_model_needs_a_license(self, model: Path, hub: Hub) -> None:
        with pytest.raises(ModelError, match="a public model needs a license"):
            push(model, "user/boxes", public=True, confirm=yes)
        push(model, "user/boxes", public=True, license_id="cc-by-4.0", confirm=yes)
        repository = hub.repositories["user/boxes"]
        assert not repository.private
        sent = front_matter(repository.commits[-1][CARD].decode())
        assert sent["license"] == "cc-by-4.0"
        assert "license_name" not in sent
        assert front_matter((model / CARD).read_text())["license"] == "other", "the card here stays"
        with pytest.raises(ModelError, match="exists already and is public"):
            push(model, "user/boxes", replace=True, confirm=yes)

    @pytest.mark.parametrize(
        ("parts", "refused"),
        [
            ({"source a": "CC BY-NC-ND 4.0"}, r"forbid that a model made of this is shared: source a"),
            ({"source a": "cc-by-nc-4.0"}, r"source a has the license cc-by-nc-4.0, which limits"),
            ({"source a": None, "target b": "mit"}, r"the license of source a is not known"),
            ({}, r"does not list the licenses"),
        ],
    )
    def test_doubtful_licenses_are_asked_about(
        self, model: Path, hub: Hub, tmp_path: Path, parts: dict[str, str | None], refused: str
    ) -> None:
        folder = with_parts(model, tmp_path / "copy", parts)
        with pytest.raises(ModelError, match=refused):
            push(folder, "user/boxes", public=True)
        assert hub.requests == []

    def test_a_private_copy_of_what_may_not_be_shared_is_asked_about(
        self, model: Path, hub: Hub, tmp_path: Path
    ) -> None:
        folder = with_parts(model, tmp_path / "copy", {"source a": "cc-by-nd-4.0", "source b": "research only"})
        asked: list[str] = []
        with pytest.raises(ModelError, match="nobody confirmed"):
            push(folder, "user/boxes", confirm=lambda question: bool(asked.append(question)))
        assert asked == ["a license forbids that a model made of this is shared: source a (cc-by-nd-4.0)"]
        notes: list[str] = []
        assert push(folder, "user/boxes", confirm=yes, report=notes.append) is not None
        assert any("source b has the license research only" in note for note in notes)

    def test_free_licenses_are_not(self, model: Path, hub: Hub, tmp_path: Path) -> None:
        folder = with_parts(model, tmp_path / "copy", {"source": "cc0-1.0", "weights": "apache-2.0"})
        assert push(folder, "user/boxes", public=True) is not None

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            *((name, "free") for name in ("apache-2.0", "MIT", "CC0 1.0", "CC-BY-4.0", "bsd-3-clause")),
            *((name, "limited") for name in ("cc-by-nc-sa-4.0", "CC BY-SA 4.0", "research only", "AGPL-3.0", "gemma")),
            *(
                (name, "forbidden")
                for name in ("cc-by-nd-4.0", "CC BY-NC-ND 4.0", "proprietary", "All rights reserved")
            ),
            *((name, "unknown") for name in (None, "", "see website", "cc-by", "standard")),
        ],
    )
    def test_kinds(self, name: str | None, kind: str) -> None:
        assert license_kind(name) == kind

    def test_the_chosen_license(self) -> None:
        assert sharing_terms({"license": "mit"}).chosen == "mit"
        assert sharing_terms({"license": "other", "license_name": "not-chosen"}).chosen is None
        assert sharing_terms({"license": "other", "license_name": "house-terms"}).chosen == "house-terms"


def test_the_commands(model: Path, hub: Hub, tmp_path: Path) -> None:
    """push asks on a terminal only; pull, card and predict from a name."""
    runner = CliRunner()

    def call(*arguments: object) -> tuple[int, str]:
        result = runner.invoke(app, [str(each) for each in arguments])
        return result.exit_code, result.output + str(result.exception or "")

    code, text = call("hub", "push", model, "user/boxes", "--public", "--license", "mit")
    assert code != 0
    assert "nobody confirmed (--yes" in text
    assert hub.requests == []
    code, text = call("hub", "push", model, "user/boxes", "--public", "--license", "mit", "--yes")
    assert code == 0, text
    assert "(public)" in text
    code, text = call("hub", "pull", "user/boxes", "--out", tmp_path / "pulled")
    assert code == 0, text
    (tmp_path / "pulled" / CARD).write_text("my words\n")
    code, text = call("hub", "card", tmp_path / "pulled")
    assert "edited, so the card is kept" in text
    assert (tmp_path / "pulled" / CARD).read_text() == "my words\n"
    (tmp_path / "pulled" / CARD).unlink()
    assert call("hub", "card", tmp_path / "pulled")[0] == 0
    assert front_matter((tmp_path / "pulled" / CARD).read_text())["library_name"] == "domainbridge"
    code, text = call("hub", "push", model, "no name")
    assert "expected USER/NAME" in text
