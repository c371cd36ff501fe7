"""Parts that are found by name: those of a package of ours, one file each, and those of other packages.

A new part is one new file: every module of the package is imported at the first look-up, so that a decorated class in
it is known. Another distribution names its parts as entry points of the registry's group: each loaded object is a part
under the entry point's name.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from domainbridge.errors import RecipeError

__all__ = ["Registered", "Registry"]

Part = TypeVar("Part")
Registered = TypeVar("Registered")


class Registry(Generic[Part]):
    """Name -> part.

    Attributes:
        key: the recipe's key that names a part, for messages.
        package: whose modules are imported at the first look-up.
        group: entry points of other distributions.
    """

    def __init__(self, key: str, package: str, group: str) -> None:
        self.key, self.package, self.group = key, package, group
        self._parts: dict[str, Part] = {}
        self._broken: dict[str, Exception] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Decorator: know a part under ``name``; a later one of the same name takes its place."""

        def keep(part: Registered) -> Registered:
            self._parts[name] = cast(Part, part)
            return part

        return keep

    def names(self) -> list[str]:
        """All known names, sorted."""
        self._load()
        return sorted(self._parts)

    def __getitem__(self, name: str) -> Part:
        """The part of that name.

        Raises:
            RecipeError: unknown; the known names are listed.
        """
        self._load()
        if name in self._broken and name not in self._parts:
            raise RecipeError(f"{self.key}: the package of {name!r} cannot be imported: {self._broken[name]}")
        if name not in self._parts:
            close = difflib.get_close_matches(name, self._parts, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(f"{self.key}: {name!r} is unknown, known are {', '.join(self.names())}{hint}")
        return self._parts[name]

    def _load(self) -> None:
        if self._complete:
            return
        self._complete = True  # first: a module may look a part up while it is imported
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for entry in entry_points(group=self.group):
            try:
                self._parts.setdefault(entry.name, entry.load())
            except Exception as error:  # of whatever kind: it is another package's; told when its part is asked for
                self._broken[entry.name] = error
