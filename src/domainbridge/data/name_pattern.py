"""Names of images and labels as recipes write them: ``{stem}`` with text around it."""

import re

from domainbridge.data.split_file import normalized
from domainbridge.data.walk import suffix_of

__all__ = ["STEM", "NamePattern"]

STEM = "{stem}"


class NamePattern:
    """``{stem}`` with text around it, as in recipes."""

    def __init__(self, pattern: str, suffixes: frozenset[str]) -> None:
        self.text, self.suffixes = pattern, suffixes
        self.with_suffix = suffix_of(pattern) in suffixes
        before, _, after = normalized(pattern).partition(STEM)
        self.expression = re.compile(re.escape(before) + "(?P<stem>.+)" + re.escape(after), re.DOTALL)

    def stem_of(self, name: str) -> str | None:
        """The stem of a relative file name; None for a name that does not fit."""
        if suffix_of(name) not in self.suffixes:
            return None
        match = self.expression.fullmatch(normalized(name if self.with_suffix else name.rpartition(".")[0]))
        return match["stem"] if match else None
