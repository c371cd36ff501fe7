"""A headless Chromium for tests of pages."""

import shutil
import subprocess
from pathlib import Path

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
MISSING = "no Chromium is installed: apt-get install chromium"
NOWHERE_ELSE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
)


def browse(address: str, profile: Path, *flags: str) -> tuple[str, str]:
    """(the page after loading, what the browser logged)."""
    command = [str(BROWSER), *_FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", *flags, address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout, result.stderr
