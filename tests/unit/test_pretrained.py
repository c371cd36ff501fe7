"""`model.weights: pretrained`: from a stand-in of the hub, from its cache without a network, from a folder."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from domainbridge.cli.app import app
from domainbridge.errors import ModelError
from domainbridge.models import pretrained_files
from domainbridge.models.backbones.base import build_backbone
from domainbridge.models.pretrained import load_backbone_weights

NAME = "test_vit"
REPOSITORY = "timm/test_vit.r160_in1k"


class Hub:
    """A local server with the hub's addresses and headers.

    Attributes:
        files: path -> content.
        asked: paths that were asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        hub_self = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                hub_self.asked.append(self.path)
                content = hub_self.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                if content is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                content = content or b""
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    served = Hub()
    thread = threading.Thread(target=served.server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    monkeypatch.delenv(pretrained_files.FOLDER, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def classifier(tmp_path: Path, name: str = NAME, seed: int = 5) -> tuple[torch.nn.Module, bytes]:
    """A classifier with weights as timm publishes them, and the file."""
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False)
    save_file(model.state_dict(), tmp_path / "published.safetensors")
    return model, (tmp_path / "published.safetensors").read_bytes()


def loaded(name: str = NAME, stride: int = 16, weights: str = "pretrained", root: Path = Path()) -> torch.nn.Module:
    torch.manual_seed(9)
    backbone = build_backbone(name, stride)
    load_backbone_weights(backbone, name, weights, root)
    return backbone.body


def test_from_the_hub_once_and_then_without_a_network(
    stand_in: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, content = classifier(tmp_path)
    assert pretrained_files.local_file(NAME) is None
    assert f"`run` downloads {REPOSITORY} once" in pretrained_files.place_sentence(NAME)
    assert stand_in.asked == [], "nothing asks the network before weights are wanted"
    stand_in.files[f"/{REPOSITORY}/resolve/main/model.safetensors"] = content
    for name, value in loaded().model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    asked = len(stand_in.asked)
    assert asked > 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = loaded().model.state_dict()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.items())
    assert len(stand_in.asked) == asked
    path = pretrained_files.local_file(NAME)
    assert path is not None
    output = CliRunner().invoke(app, ["doctor", NAME]).output
    assert f"initial weights: {REPOSITORY}, license apache-2.0" in output
    assert str(path) in output

    path.resolve().write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelError, match="do not have the SHA-256"):
        loaded()


def test_without_a_network(stand_in: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    message = rf"{REPOSITORY}.* are not on this machine and .*{pretrained_files.FOLDER}.*{NAME}.safetensors"
    with pytest.raises(ModelError, match=message):
        loaded()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=message):
        loaded()


def test_from_a_folder(stand_in: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, content = classifier(tmp_path)
    folder = tmp_path / "weights"
    monkeypatch.setenv(pretrained_files.FOLDER, str(folder))
    for place in (f"{NAME}.safetensors", f"timm/{REPOSITORY.rpartition('/')[2]}/model.safetensors"):
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(content)
        body = loaded()
        assert torch.equal(body.model.patch_embed.proj.weight, model.patch_embed.proj.weight)
        assert pretrained_files.local_file(NAME) == folder / place
        (folder / place).unlink()
        (folder / place).parent.rmdir()
    assert stand_in.asked == []


@pytest.mark.parametrize(("name", "stride"), [("test_convnext", 16), ("test_mambaout", 32), ("test_resnet", 8)])
def test_a_file_under_the_names_of_timm(name: str, stride: int, tmp_path: Path) -> None:
    """Extractors flatten sequences: the names in a file are those of the classifier."""
    model, _ = classifier(tmp_path, name)
    body = loaded(name, stride, "published.safetensors", tmp_path)
    theirs = sorted(value.sum().item() for value in model.state_dict().values())
    ours = [value.sum().item() for value in body.state_dict().values()]
    assert all(any(value == other for other in theirs) for value in ours)
    damaged = load_file(tmp_path / "published.safetensors")
    del damaged[next(key for key in sorted(damaged) if key.startswith(("stages", "layer1")) and "weight" in key)]
    save_file(damaged, tmp_path / "damaged.safetensors")
    with pytest.raises(ModelError, match="weights of another architecture"):
        loaded(name, stride, "damaged.safetensors", tmp_path)


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model(NAME, img_size=64).state_dict(), tmp_path / "small.safetensors")
    assert loaded(weights="small.safetensors", root=tmp_path).model.pos_embed.shape[1] == 101, "160 pixels, patch 16"


def test_the_published_trunk(stand_in: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    trunk = build_backbone("resnet18_v1c", 8).body.state_dict()
    renamed = {f"stem.{name[6:]}" if name.startswith("conv1.") else name: value for name, value in trunk.items()}
    renamed = {
        name.replace("bn1.", "stem.7.", 1) if name.startswith("bn1.") else name: v for name, v in renamed.items()
    }
    torch.save(renamed, tmp_path / "published.pth")
    content = (tmp_path / "published.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    assert pretrained_files.PUBLISHED["resnet101_v1c"].endswith("/resnet101_v1c-e67eebb6.pth")
    monkeypatch.setitem(pretrained_files.PUBLISHED, "resnet18_v1c", f"{stand_in.url}/resnet18_v1c-{digest}.pth")
    with pytest.raises(ModelError, match="cannot be downloaded"):
        loaded("resnet18_v1c", 8)
    stand_in.files[f"/resnet18_v1c-{digest}.pth"] = content[:-1] + b"x"
    with pytest.raises(ModelError, match=r"cannot be downloaded .*hash"):
        loaded("resnet18_v1c", 8)
    stand_in.files[f"/resnet18_v1c-{digest}.pth"] = content
    body = loaded("resnet18_v1c", 8).state_dict()
    assert all(torch.equal(value, trunk[name]) for name, value in body.items())


def test_names_without_pretrained_weights() -> None:
    with pytest.raises(
        ModelError, match=r"take weights: imagenet, or timm's weights with .*efficientnet_lite0.ra_in1k"
    ):
        loaded("efficientnet_lite0", 32)
    with pytest.raises(ModelError, match="timm names no pretrained weights of resnet152_v1c"):
        loaded("resnet152_v1c", 8)
