"""Small inputs from users' troubles, beside the project; copied, with today's names of keys."""

import re
import shutil
from pathlib import Path

CASES = Path(__file__).parents[2] / "shared" / "cases"
ABSENT = f"no cases at {CASES}"


def copy_of(folder: Path, destination: Path) -> Path:
    """A copy that tests may change."""
    shutil.copytree(folder, destination, symlinks=True)
    for path in (destination, *destination.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    for path in destination.rglob("*.yaml"):
        content = path.read_bytes()
        encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        text = re.sub(r"\bworkers:", "num_workers:", content.decode(encoding)).replace("-distil:", "-distill:")
        path.write_bytes(text.encode("utf-16" if encoding == "utf-16" else "utf-8"))
    return destination
