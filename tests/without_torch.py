"""The command line in a process in which torch and what needs torch cannot be imported."""

import sys
from collections.abc import Sequence

_BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "tensorboard", "matplotlib", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
from domainbridge.__main__ import main
main()
"""


def without_torch(arguments: Sequence[str]) -> list[str]:
    """The command of a process that runs ``domainbridge`` with these arguments."""
    return [sys.executable, "-c", _BLOCKED, *arguments]
