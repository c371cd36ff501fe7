"""Commands as processes of their own, which leave nothing behind on the device."""

import subprocess
from collections.abc import Sequence

__all__ = ["PATIENCE", "output_of"]

PATIENCE = 200.0
"""Seconds of a command."""
_ORDERLY = 40.0
"""Seconds in which torchrun ends its processes."""


def output_of(command: Sequence[str]) -> str:
    """What a command says on both streams.

    Raises:
        RuntimeError: it failed, or took too long. It is asked to end first: torchrun would leave its processes behind.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            output, _ = process.communicate(timeout=_ORDERLY)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        raise RuntimeError(f"{' '.join(command)}: not done within {PATIENCE:.0f} s: {output[-3000:]}") from None
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}: {output[-3000:]}")
    return output
