"""Which annotation format a file or folder has."""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.annotations.base import FORMATS

__all__ = ["Found", "find_annotations", "locate"]


@dataclass(frozen=True)
class Found:
    """An annotation that was found.

    Attributes:
        format: name of the format in recipes.
        title: name of the format in words.
        path: file or folder that holds it.
        num_images: annotated images.
        categories: names, in the order of the files.
        evidence: what was found, a sentence.
    """

    format: str
    title: str
    path: Path
    num_images: int
    categories: tuple[str, ...]
    evidence: str


def find_annotations(path: Path) -> Found | None:
    """The annotation in a file or folder; None if no known format fits.

    Raises:
        DataError: an annotation is damaged, or a folder holds several.
    """
    place = locate(path)
    if place is None:
        return None
    name, root = place
    index = FORMATS[name].index(root)
    title = FORMATS[name].title
    names = tuple(category.name for category in index.categories)
    evidence = f"{root}: {title}, {len(index.entries)} annotated images, {len(names)} categories"
    return Found(name, title, root, len(index.entries), names, evidence)


def locate(
    path: Path, annotation_format: str | None = None, *, among: Container[str] | None = None
) -> tuple[str, Path] | None:
    """Format and the file or folder to read; only a few files are opened.

    Args:
        path: file or folder.
        annotation_format: that the path has for certain; None: found out.
        among: formats that are tried then; None: all.

    Raises:
        DataError: a folder holds several annotations.
        RecipeError: the format is unknown.
    """
    if annotation_format is not None:
        return (annotation_format, FORMATS[annotation_format].find(path) or path) if path.exists() else None
    for name in FORMATS.names():
        if among is None or name in among:
            root = FORMATS[name].find(path)
            if root is not None:
                return name, root
    return None
