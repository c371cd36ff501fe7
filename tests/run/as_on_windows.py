"""Run a command of domainbridge without what only Linux and macOS have: python as_on_windows.py ARGUMENTS.

Modules and functions that Windows lacks are taken from the package, not from the libraries below the package, and
processes start as Windows and macOS start them. Every module of the package is imported first.
"""

import builtins
import errno
import importlib
import multiprocessing
import os
import pkgutil
import signal
import sys
from typing import Any

MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "termios", "tty", "pty", "syslog"}
"""Of the standard library, on Linux and macOS only."""
FUNCTIONS = (
    "fork",
    "getuid",
    "geteuid",
    "getgid",
    "getpgid",
    "killpg",
    "nice",
    "uname",
    "sched_getaffinity",
    "statvfs",
)
SIGNALS = ("SIGALRM", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD")
FOLDERS = ("/proc", "/dev/shm")
HIDDEN = ("domainbridge.__main__",)
"""Modules that import nothing of interest and start the command."""


class Missing:
    """A module with some of its names gone."""

    def __init__(self, module: Any, names: tuple[str, ...]) -> None:
        self._module, self._names = module, names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r} on Windows")
        return getattr(self._module, name)


def block() -> None:
    """Take the names away from modules of the package, and the folders from everyone."""
    plain_import, places = builtins.__import__, {"os": Missing(os, FUNCTIONS), "signal": Missing(signal, SIGNALS)}

    def imported(name: str, scope: Any = None, *rest: Any, **others: Any) -> Any:
        importer = str((scope or {}).get("__name__", ""))
        if importer.startswith("domainbridge") and name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r} on Windows", name=name)
        module = plain_import(name, scope, *rest, **others)
        return places.get(name, module) if importer.startswith("domainbridge") else module

    builtins.__import__ = imported
    plain_stat = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        if str(path).startswith(FOLDERS):
            raise FileNotFoundError(errno.ENOENT, "not on Windows", str(path))
        return plain_stat(path, **how)

    os.stat = stat  # type: ignore[assignment]
    sys.modules["resource"] = None  # type: ignore[assignment]  # asked for with find_spec


def main() -> None:
    """Import every module, then run the command."""
    import domainbridge

    multiprocessing.set_start_method("spawn")
    block()
    names = [module.name for module in pkgutil.walk_packages(domainbridge.__path__, "domainbridge.")]
    for name in set(names) - set(HIDDEN):
        importlib.import_module(name)
    from domainbridge.cli.app import run_app

    sys.argv = ["domainbridge", *sys.argv[1:]]
    run_app()


if __name__ == "__main__":
    main()
