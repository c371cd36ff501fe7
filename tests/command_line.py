"""The command line, called in this process: a new one costs seconds, most of them for the import of torch.

Tests whose point is the process (signals, torchrun, a module that is missing) start one themselves.
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from domainbridge.cli.app import run_app


def call(*arguments: object, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run ``domainbridge ARGUMENTS``; a wide terminal, so that no name is cut. An unknown exception is raised."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    command = ["domainbridge", *map(str, arguments)]
    with (
        patch.object(sys, "argv", command),
        patch.dict(os.environ, {"COLUMNS": "200"}),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            run_app()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    output, errors = (_written(stream) for stream in streams)
    return CompletedProcess(command, code, output, errors)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("utf-8")
