"""What to say about a path that does not exist: the likely reason, and the name that is meant."""

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

__all__ = ["absence", "close_name"]

_LISTED = 5
_INVISIBLE = ("Zs", "Zl", "Zp", "Cf", "Cc", "Pi", "Pf")
"""Unicode categories of characters that look like nothing, like a space or like plain quotes."""


def absence(path: Path) -> str:
    """A hint for a message about an absent file or folder, beginning with ``;``, or ""."""
    text = str(path)
    odd = next((c for c in text if c != " " and unicodedata.category(c) in _INVISIBLE), None)
    if odd is not None:
        return f"; the path has the character U+{ord(odd):04X} ({unicodedata.name(odd, 'control')}), type it again"
    if "\\" in text:
        return "; write / between folders"
    if "$" in text:
        return "; variables such as $HOME are not replaced in recipes: write the path, or ~ for the home folder"
    if any(character in path.name for character in "*?"):
        return "; expected a name and no pattern: image_pattern and label_pattern choose the files of a folder"
    parent = next((folder for folder in path.parents if folder.is_dir()), None)
    if parent is None:
        return ""
    wanted = path.relative_to(parent).parts[0]
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    meant = close_name(wanted, names)
    if meant is not None:
        return f"; did you mean {parent / meant}?"
    folders = [name for name in names if (parent / name).is_dir()]
    more = f" and {len(folders) - _LISTED} more" if len(folders) > _LISTED else ""
    return f"; {parent} has the folders {', '.join(folders[:_LISTED])}{more}" if folders else ""


def close_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name that is meant by a mistyped one, if any is close: equal but for upper and lower case, or similar."""
    same = next((name for name in names if name.casefold() == wanted.casefold()), None)
    return same or next(iter(difflib.get_close_matches(wanted, names, n=1, cutoff=0.8)), None)
