"""The model card of a MODEL folder as a file: written by us, or edited by somebody and then left alone."""

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml

from domainbridge.errors import ModelError
from domainbridge.files import write_text

__all__ = ["CARD", "front_matter", "is_unedited", "with_front_matter", "write_card"]

CARD = "README.md"
"""Name that the Hugging Face hub shows as the page of a model."""
_SEAL = "<!-- Written by domainbridge; seal {}. An edited card is kept as it is. -->\n"
_SEALED = re.compile(_SEAL.format("([0-9a-f]{16})") + r"\Z")
_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)


def write_card(folder: Path, text: str) -> str | None:
    """Write a card into a model folder, unless somebody edited the card that is there.

    Args:
        folder: of the model.
        text: Markdown with front matter, without a seal.

    Returns:
        None, or a sentence that says why the card was left alone.

    Raises:
        StorageError: the card cannot be written.
    """
    path, sealed = folder / CARD, text + _SEAL.format(_digest(text))
    if path.exists() or path.is_symlink():
        if not is_unedited(path):
            return f"{path}: edited, so the card is kept as it is; delete the file to have a new card written"
        if path.read_bytes() == sealed.encode():
            return None
    write_text(path, sealed)
    return None


def is_unedited(path: Path) -> bool:
    """Whether a file is a card as :func:`write_card` wrote it."""
    try:
        text = path.read_bytes().decode() if path.is_file() and not path.is_symlink() else ""
    except (OSError, UnicodeDecodeError):
        return False
    match = _SEALED.search(text.replace("\r\n", "\n"))
    return match is not None and match[1] == _digest(text.replace("\r\n", "\n")[: match.start()])


def front_matter(text: str, name: str = CARD) -> dict[str, Any]:
    """The metadata at the head of a card; empty when there are none.

    Args:
        text: the card.
        name: of the file, for messages.

    Raises:
        ModelError: the metadata are no YAML mapping.
    """
    match = _FRONT.match(text.replace("\r\n", "\n"))
    if match is None:
        return {}
    try:
        content = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: the metadata between the lines '---' are no YAML ({error}); correct them") from error
    if not isinstance(content, dict):
        raise ModelError(f"{name}: the metadata between the lines '---' must be 'key: value' lines; correct them")
    return content


def with_front_matter(text: str, content: dict[str, Any]) -> str:
    """The card with other metadata."""
    body = _FRONT.sub("", text.replace("\r\n", "\n"))
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n{body}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
