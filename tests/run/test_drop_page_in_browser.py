"""The page of `serve` in a real browser: images are dropped and chosen, the classes appear, nobody else is asked."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn
from fastapi.responses import HTMLResponse, Response
from starlette.requests import Request

from domainbridge.data.label_spaces import label_space
from domainbridge.evaluation.exported import ExportedPredictor
from domainbridge.evaluation.exported_file import ExportedConfig
from domainbridge.serve.app import Limits, service
from run.browser import BROWSER, MISSING, NOWHERE_ELSE, browse

pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)

SPACE = label_space("rgb", ["red", "green", "blue"])
PERSON = """<!DOCTYPE html><link rel="icon" href="data:,"><body style="margin:0">
<iframe src="/" style="width:100%;height:1000px;border:0"></iframe><img src="/held.png"><script>
document.querySelector("iframe").addEventListener("load", async () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, seen = [];
  const given = async name => {
    const files = new frame.contentWindow.DataTransfer();
    files.items.add(new frame.contentWindow.File([await (await fetch(name)).blob()], name));
    return files;
  };
  const answered = () => new Promise(done => {
    const status = page.querySelector("#status");
    const observer = new MutationObserver(() => {
      if (!/pixels in|Not segmented/.test(status.textContent)) return;
      observer.disconnect();
      done();
    });
    observer.observe(status, {childList: true, characterData: true, subtree: true});
  });
  const look = async what => {
    const canvas = page.querySelector("#colors");
    const copy = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const color = [...copy.getImageData(1, 1, 1, 1).data].join(" ");
    const rows = [...page.querySelectorAll("#classes tr")].map(row => row.textContent.trim()).join(" | ");
    const shown = frame.contentWindow.getComputedStyle(page.querySelector("#result")).display;
    const photo = page.querySelector("#photo");
    await photo.decode().catch(() => {});
    seen.push([what, canvas.width, canvas.height, color, rows, shown, photo.naturalWidth,
      page.querySelector("#status").textContent, page.documentElement.scrollWidth <= frame.clientWidth].join("; "));
  };
  const data = await given("street.png");
  let answer = answered();
  frame.contentWindow.dispatchEvent(new frame.contentWindow.DragEvent("drop", {dataTransfer: data, cancelable: true}));
  await answer;
  await look("dropped");
  const input = page.querySelector("#file");
  input.files = (await given("small.png")).files;
  answer = answered();
  input.dispatchEvent(new frame.contentWindow.Event("change"));
  await answer;
  await look("chosen");
  input.files = (await given("text.png")).files;
  answer = answered();
  input.dispatchEvent(new frame.contentWindow.Event("change"));
  await answer;
  await look("no image");
  await fetch("/seen", {method: "POST", body: seen.join("\\n")});
});
</script>"""
"""Somebody who drops an image, then chooses another one, then a file that is no image.

The browser ends when everything is loaded: the last picture is held back until the person has told what was seen.
"""


class ByColor:
    """The class of a pixel is its brightest channel."""

    def logits(self, batch: np.ndarray) -> np.ndarray:
        return batch * 30


def picture(height: int, width: int) -> bytes:
    """Red on the left, blue on the right third."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : 2 * width // 3, 2] = 200
    image[:, 2 * width // 3 :, 0] = 200
    return cv2.imencode(".png", image)[1].tobytes()


FILES = {"street.png": picture(90, 120), "small.png": picture(8, 12), "text.png": b"no image"}


@pytest.fixture
def served() -> Iterator[tuple[str, list[str], list[str]]]:
    """(address of the service, paths that were asked for, what the person saw)."""
    config = ExportedConfig(SPACE.name, SPACE.classes, SPACE.colors, None)
    app = service(ExportedPredictor(ByColor(), config), "by color", Limits(20 * 2**20, 25_000_000, 30.0, 16))
    asked: list[str] = []
    seen: list[str] = []
    told = asyncio.Event()

    @app.middleware("http")
    async def note(request: Request, answer):  # type: ignore[no-untyped-def]
        asked.append(request.url.path)
        return await answer(request)

    @app.get("/person.html")
    async def person() -> HTMLResponse:
        return HTMLResponse(PERSON)

    @app.post("/seen")
    async def tell(request: Request) -> None:
        seen.extend((await request.body()).decode().splitlines())
        told.set()

    @app.get("/held.png")
    async def hold() -> Response:
        await asyncio.wait_for(told.wait(), 200)
        return Response(FILES["small.png"])

    @app.get("/{name}.png")
    async def image(name: str) -> Response:
        return Response(FILES[f"{name}.png"])

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", asked, seen
    server.should_exit = True
    thread.join()


def test_an_image_is_dropped_and_one_is_chosen(served: tuple[str, list[str], list[str]], tmp_path: Path) -> None:
    address, asked, seen = served
    flags = ("--dump-dom", "--window-size=1200,1000", NOWHERE_ELSE)
    _, log = browse(f"{address}/person.html", tmp_path / "profile", *flags)
    dropped, chosen, refused = seen
    color = " ".join(map(str, SPACE.palette[0]))
    assert dropped.startswith(f"dropped; 120; 90; {color} 255; red66.7 %")
    assert "blue33.3 %" in dropped
    assert "; grid; 120; 120 x 90 pixels in " in dropped
    assert chosen.startswith("chosen; 12; 8; ")
    assert "; 12; 12 x 8 pixels in " in chosen
    assert "Not segmented: " in refused
    assert all(line.endswith("; true") for line in (dropped, chosen, refused)), "nothing is wider than the window"
    errors = [line for line in log.splitlines() if "CONSOLE" in line]
    assert all("status of 415" in line for line in errors), errors  # the answer to the file that is no image
    ours = {"/person.html", "/held.png", "/street.png", "/small.png", "/text.png", "/seen"}
    assert set(asked) - ours == {"/", "/model", "/predict"}
