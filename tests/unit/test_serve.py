"""The service under a real client: results, refusals, limits."""

import http.client
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.label_spaces import label_space
from domainbridge.data.training_sizes import ImageSizes, TrainingSizes
from domainbridge.errors import RecipeError
from domainbridge.evaluation.exported import ExportedPredictor, load_exported
from domainbridge.evaluation.exported_file import ExportedConfig
from domainbridge.serve.app import Limits, service
from domainbridge.serve.server import serve_model
from tiny_onnx import write_tiny_onnx
from without_torch import without_torch

SPACE = label_space("rgb", ["red", "green", "blue"])
LIMITS = Limits(body_bytes=50_000, pixels=10_000, seconds=60.0, places=3)
SHORT = replace(LIMITS, seconds=2.5)
"""Long enough for a small request on a crowded machine."""


class ByColor:
    """The class of a pixel is its brightest channel. The network waits while ``gate`` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        self.gate.wait(20)
        return batch * 30


NETWORK = ByColor()


@contextmanager
def running(limits: Limits) -> Iterator[int]:
    """The port of a service in a thread."""
    config = ExportedConfig(
        *(SPACE.name, SPACE.classes, SPACE.colors, None),
        smallest_side=4,
        training_sizes=TrainingSizes((8, 8), None, ImageSizes(4, (8, 12), (8, 12), (8, 12))),
    )
    app = service(ExportedPredictor(NETWORK, config), "by color", limits)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running(LIMITS) as port:
        yield port


@pytest.fixture(scope="module")
def short_port() -> Iterator[int]:
    with running(SHORT) as port:
        yield port


def ask(
    port: int, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


HALVES = np.zeros((8, 12, 3), np.uint8)
HALVES[:, :9, 0] = 200
HALVES[:, 9:, 2] = 200
PICTURE = encoded(HALVES)


def form(content: bytes, name: str = 'name="image"; filename="a.png"') -> tuple[bytes, dict[str, str]]:
    body = b"--xx\r\nContent-Disposition: form-data; " + name.encode() + b"\r\n\r\n" + content + b"\r\n--xx--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=xx"}


class TestResults:
    def test_pictures(self, port: int) -> None:
        expected = np.where(HALVES[..., 0] > 0, 0, 2)
        for output in ("class", "color", "overlay", "confidence"):
            status, content, headers = ask(port, f"/predict?output={output}", PICTURE)
            assert (status, headers["content-type"]) == (200, "image/png")
            pixels = np.asarray(Image.open(io.BytesIO(content)))
            assert pixels.shape[:2] == (8, 12)
            if output == "class":
                assert (pixels == expected).all()
            if output == "color":
                assert (pixels == SPACE.palette[expected]).all()
            if output == "overlay":
                assert np.abs(pixels - (HALVES / 2 + SPACE.palette[expected] / 2)).max() <= 1

    def test_json_with_shares_and_runs(self, port: int) -> None:
        status, content, _ = ask(port, "/predict?output=json&runs=true", *form(PICTURE))
        facts = json.loads(content)
        assert status == 200
        assert [(each["name"], each["share"]) for each in facts["classes"]] == [("red", 0.75), ("blue", 0.25)]
        assert all(0.9 < each["confidence"] <= 1 for each in facts["classes"])
        assert facts["runs"] == [[0, 9], [2, 3]] * 8
        assert "runs" not in json.loads(ask(port, "/predict?output=json", PICTURE)[1])

    def test_another_scale_than_in_training_is_told_once_and_counted(
        self, port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        large = io.BytesIO()
        Image.new("RGB", (60, 40)).save(large, "PNG")
        before = json.loads(ask(port, "/health")[1])["other_scale"]
        assert "note" not in json.loads(ask(port, "/predict?output=json", PICTURE)[1])
        facts = json.loads(ask(port, "/predict?output=json", large.getvalue())[1])
        assert "60x40 pixels at the network, 12x8 (target) in training, so sides 5 times as long" in facts["note"]
        ask(port, "/predict", large.getvalue())
        assert json.loads(ask(port, "/health")[1])["other_scale"] == before + 2
        assert sum("60x40 pixels" in record.getMessage() for record in caplog.records) == (before == 0)

    def test_page_model_and_health(self, port: int) -> None:
        status, page, headers = ask(port, "/")
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert not re.search(rb"(src|href)=.?(https?:)?//", page), "the page asks nobody else"
        assert json.loads(ask(port, "/model")[1])["classes"] == ["red", "green", "blue"]
        before = json.loads(ask(port, "/health")[1])["segmented"]
        ask(port, "/predict", PICTURE)
        health = json.loads(ask(port, "/health")[1])
        assert (health["status"], health["segmented"], health["waiting"]) == ("ok", before + 1, 0)

    def test_many_clients_at_once(self) -> None:
        """Each gets the answer to its own image."""
        shares: dict[int, float] = {}

        def client(number: int, port: int) -> None:
            pixels = np.zeros((8, 20, 3), np.uint8)
            pixels[:, :number, 0] = pixels[:, number:, 1] = 255
            for _ in range(5):
                answer = json.loads(ask(port, "/predict?output=json", encoded(pixels))[1])
                shares[number] = {each["name"]: each["share"] for each in answer["classes"]}["red"]

        with running(Limits(20 * 2**20, 25_000_000, 30.0, places=64)) as port:
            threads = [threading.Thread(target=client, args=(number, port)) for number in range(1, 9)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert shares == {number: number / 20 for number in range(1, 9)}


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


DEEP = encoded(np.full((8, 8), 40_000, np.uint16))
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (90, 100, 3), np.uint8), "JPEG")
BAD: dict[str, tuple[str, Any, dict[str, str], str | None, int, str]] = {
    "empty body": ("/predict", b"", {}, None, 400, "empty_body"),
    "text": ("/predict", b"hello", {}, None, 415, "no_image"),
    "SVG": ("/predict", b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, None, 415, "no_image"),
    "half a file": ("/predict", NOISE[: len(NOISE) // 2], {}, None, 422, "damaged_image"),
    "16 bits without a scale": ("/predict", DEEP, {}, None, 422, "damaged_image"),
    "fewer pixels than the network takes": ("/predict", encoded(HALVES[:2, :2]), {}, None, 422, "cannot_segment"),
    "unknown output": ("/predict?output=mask", PICTURE, {}, None, 400, "bad_parameter"),
    "unknown parameter": ("/predict?format=png", PICTURE, {}, None, 400, "bad_parameter"),
    "runs of a picture": ("/predict?output=color&runs=true", PICTURE, {}, None, 400, "bad_parameter"),
    "too many bytes": ("/predict", b"x" * 50_001, {}, None, 413, "body_too_large"),
    "too many bytes in parts": ("/predict", iter([b"x" * 30_000] * 2), {}, None, 413, "body_too_large"),
    "too many pixels in few bytes": ("/predict", bomb(60_000, 60_000), {}, None, 413, "too_many_pixels"),
    "form without a file": ("/predict", *form(b"1", 'name="image"'), None, 400, "no_file"),
    "form with an empty file": ("/predict", *form(b""), None, 400, "no_file"),
    "form without a boundary": ("/predict", b"x", {"Content-Type": "multipart/form-data"}, None, 400, "bad_form"),
    "damaged form": ("/predict", b"--yy\r\nx", form(b"")[1], None, 400, "bad_form"),
    "GET": ("/predict", None, {}, None, 405, "method_not_allowed"),
    "DELETE": ("/", None, {}, "DELETE", 405, "method_not_allowed"),
    "unknown path": ("/v1/segment", PICTURE, {}, None, 404, "not_found"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", BAD)
    def test_a_bad_request_gets_one_clear_error(self, name: str, port: int) -> None:
        path, body, headers, method, status, code = BAD[name]
        answer, content, sent = ask(port, path, body, headers, method)
        error = json.loads(content)["error"]
        assert (answer, error["code"]) == (status, code), error
        assert len(error["message"]) > 10
        assert sent["content-type"] == "application/json"
        assert ask(port, "/predict?output=class", PICTURE)[0] == 200, "the service goes on"

    def test_a_slow_body(self, short_port: int) -> None:
        with socket.create_connection(("127.0.0.1", short_port), timeout=20) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
            answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"slow_body" in answer or b"content-length" in answer.lower()

    def test_an_image_that_does_not_fit_into_memory(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: object) -> None:
            raise MemoryError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(NETWORK, "logits", full)
            status, content, _ = ask(port, "/predict", PICTURE)
        assert (status, json.loads(content)["error"]["code"]) == (503, "no_memory")
        assert ask(port, "/predict", PICTURE)[0] == 200, "the service goes on"

    def test_a_slow_network_and_a_full_queue(self, short_port: int) -> None:
        answers: list[tuple[int, str]] = []

        def client() -> None:
            status, content, _ = ask(short_port, "/predict", PICTURE)
            answers.append((status, json.loads(content)["error"]["code"]))

        NETWORK.gate.clear()
        calls = NETWORK.calls
        try:
            waiting = [threading.Thread(target=client) for _ in range(LIMITS.places)]
            for thread in waiting:
                thread.start()
            while json.loads(ask(short_port, "/health")[1])["waiting"] < LIMITS.places:
                time.sleep(0.01)
            status, content, headers = ask(short_port, "/predict", PICTURE)
            assert (status, json.loads(content)["error"]["code"], headers["retry-after"]) == (503, "busy", "1")
            for thread in waiting:
                thread.join()
            assert answers == [(504, "too_slow")] * LIMITS.places
            assert json.loads(ask(short_port, "/health")[1])["waiting"] == 1, "the image at work keeps its place"
        finally:
            NETWORK.gate.set()
        while json.loads(ask(short_port, "/health")[1])["waiting"]:
            time.sleep(0.01)
        assert NETWORK.calls == calls + 1, "requests that are over are not begun"
        assert ask(short_port, "/predict", PICTURE)[0] == 200


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_the_command_serves_an_exported_file_without_torch(tmp_path: Path) -> None:
    write_tiny_onnx(tmp_path / "tiny.onnx")
    command = without_torch(["serve", str(tmp_path / "tiny.onnx"), "--port", "0"])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert match is not None, line + process.stderr.read()
        status, content, _ = ask(int(match[1]), "/predict?output=json", PICTURE)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert status == 200
    assert json.loads(content)["classes"][0]["name"] == "red"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    write_tiny_onnx(tmp_path / "tiny.onnx")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(RecipeError, match="choose another port or address"),
    ):
        serve_model(tmp_path / "tiny.onnx", port=taken.getsockname()[1])


def test_what_a_file_of_one_size_does_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_onnx(tmp_path / "tiny.onnx", (4, 6))
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: [each.close() for each in sockets])
    told: list[str] = []
    serve_model(tmp_path / "tiny.onnx", port=0, device="cpu", report=told.append)
    assert "takes images of height 4 and width 6 only" in told[0]
    predictor = load_exported(tmp_path / "tiny.onnx", device="cpu")
    red = np.zeros((9, 5, 3), np.uint8)
    red[..., 0] = 255
    assert (predictor.class_map(red).classes == np.zeros((9, 5))).all()
