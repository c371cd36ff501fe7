"""The commands that the documents show: in fenced blocks and between backticks."""

import re
import shlex
from pathlib import Path
from typing import Any

from typer.main import get_command

from domainbridge.cli.app import app

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s+)#(?!\w).*$")
_CALL = re.compile(r"(?:\S+ )*?(?:\S*/)?domainbridge( .*)?$")
_OPTIONAL = re.compile(r"\[(--[^\]]*)\]")
_PROGRAMS = ("domainbridge", "torchrun", ".venv/bin/domainbridge")


def shell_lines(page: Path, language: str | None = None) -> list[str]:
    """Lines of the fenced blocks, without comments and prompts; continued lines are joined."""
    lines: list[str] = []
    for kind, text in _FENCED.findall(page.read_text()):
        if language in (None, kind) and kind in ("", "sh", "bash", "console"):
            joined = re.sub(r"\\\n\s*", "", text)
            lines += [_COMMENT.sub("", line).strip().removeprefix("$ ") for line in joined.splitlines()]
    return [line for line in lines if line]


def shown_commands(page: Path) -> list[list[str]]:
    """The arguments after ``domainbridge`` of every shown command, in shell blocks and between backticks."""
    prose = _FENCED.sub("", page.read_text())
    lines = [*shell_lines(page), *re.findall(r"`([^`\n]+)`", prose)]
    calls = [line for line in lines if line.startswith(_PROGRAMS)]
    matches = (_CALL.match(_OPTIONAL.sub(r"\1", line.split(" | ")[0])) for line in calls)
    return [shlex.split(match[1] or "") for match in matches if match]


def resolved(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command or group (of click, as typer has it) that the arguments name, and the other arguments.

    Raises:
        KeyError: no such command.
    """
    command: Any = get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command: Any) -> set[str]:
    return {"--help", *(name for option in command.params for name in (*option.opts, *option.secondary_opts))}
