"""report.html in a real browser: no error, no request to anywhere, nothing wider than a phone."""

import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from domainbridge.report.write import write_report
from run.browser import BROWSER, MISSING, NOWHERE_ELSE, browse
from run_folder import write_run

pytestmark = pytest.mark.skipif(BROWSER is None, reason=MISSING)

FRAME = """<!DOCTYPE html><body style="margin:0">
<iframe src="report.html" style="width:360px;height:4000px;border:0"></iframe>
<p id="measured"></p><script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument;
  const broken = [...page.images].filter(image => !image.naturalWidth).length;
  document.querySelector("#measured").textContent =
    `width ${page.documentElement.scrollWidth} images ${page.images.length} broken ${broken} ` +
    `font ${parseFloat(getComputedStyle(page.body).fontSize)}`;
});
</script>"""
"""A phone of 360 pixels around the report."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """(address of a folder with a report in a frame, what was asked for)."""
    stages = {"source-only": 0.6, "r1-cut": 0.7, "r1-class": 0.65, "r1-distill": 0.8}
    site = tmp_path / "site"
    site.mkdir()
    write_report([write_run(tmp_path / "runs" / "tiny", stages)], site / "report.html")
    (site / "frame.html").write_text(FRAME)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_console_error_and_no_request(served: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = served
    page, log = browse(f"{address}/report.html", tmp_path / "profile", "--dump-dom", NOWHERE_ELSE)
    assert "Adaptation helped on fog" in page
    assert "CONSOLE" not in log, [line for line in log.splitlines() if "CONSOLE" in line]
    assert asked == ["/report.html"]


def test_the_log_would_show_an_error(served: tuple[str, list[str]], tmp_path: Path) -> None:
    """The test above can fail."""
    address, asked = served
    site = tmp_path / "site"
    broken = (site / "report.html").read_text().replace("</body>", '<img src="/elsewhere.png"></body>')
    (site / "broken.html").write_text(broken)
    _, log = browse(f"{address}/broken.html", tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" in log, "the page's own policy refuses what is no data"
    assert asked == ["/broken.html"]


def test_it_fits_a_phone(served: tuple[str, list[str]], tmp_path: Path) -> None:
    address, _ = served
    page, _ = browse(f"{address}/frame.html", tmp_path / "profile", "--dump-dom", "--virtual-time-budget=5000")
    match = re.search(r"width (\d+) images (\d+) broken (\d+) font ([\d.]+)", page)
    assert match is not None, page[-500:]
    assert int(match[1]) <= 360
    assert int(match[2]) > 10
    assert int(match[3]) == 0
    assert float(match[4]) >= 14


@pytest.mark.parametrize(("scheme", "dark"), [("0", True), ("1", False)])
def test_it_follows_the_color_scheme(scheme: str, dark: bool, served: tuple[str, list[str]], tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    shot = tmp_path / "shot.png"
    flags = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,900", f"--screenshot={shot}")
    browse(f"{served[0]}/report.html", tmp_path / "profile", *flags)
    with Image.open(shot) as image:
        corner = np.asarray(image.convert("L"))[:50, :20]
    assert (corner.mean() < 60) == dark


def test_it_prints(served: tuple[str, list[str]], tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    browse(f"{served[0]}/report.html", tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={path}")
    assert path.read_bytes().startswith(b"%PDF")
