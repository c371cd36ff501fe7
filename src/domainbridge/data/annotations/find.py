"""Which annotation format a file or folder has."""

from dataclasses import dataclass
from pathlib import Path

from domainbridge.data.annotations.base import FORMATS, Category, Index
from domainbridge.data.annotations.reading import first_file
from domainbridge.errors import DataError

__all__ = ["Found", "annotation_index", "categories", "find_annotations"]


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


def find_annotations(path: Path, annotation_format: str | None = None) -> Found | None:
    """The annotation in a file or folder; None if no known format fits.

    Args:
        path: file or folder.
        annotation_format: the only format to try; None tries all.

    Raises:
        DataError: an annotation is damaged, or a folder holds several.
        RecipeError: the format is unknown.
    """
    place = locate(path, annotation_format)
    if place is None:
        return None
    name, root = place
    index = FORMATS[name].index(root)
    title = FORMATS[name].title
    names = tuple(category.name for category in index.categories)
    evidence = f"{root}: {title}, {len(index.entries)} annotated images, {len(names)} categories"
    return Found(name, title, root, len(index.entries), names, evidence)


def locate(path: Path, annotation_format: str | None = None) -> tuple[str, Path] | None:
    """Format and the file or folder to read; only a few files are opened.

    Raises:
        As :func:`find_annotations`.
    """
    if annotation_format is not None:
        place = FORMATS[annotation_format].find(path) if path.exists() else None
        return (annotation_format, place or path) if path.exists() else None
    for name in FORMATS.names():
        root = FORMATS[name].find(path)
        if root is not None:
            return name, root
    return None


def annotation_index(annotation_format: str, root: Path) -> Index:
    """Categories and images.

    Raises:
        DataError: the annotation is damaged.
        RecipeError: the format is unknown.
    """
    return FORMATS[annotation_format].index(root)


def categories(path: Path, annotation_format: str | None = None) -> tuple[Category, ...]:
    """Categories of an annotation, in the order of its files.

    Raises:
        DataError: no annotation is there, or it is damaged.
        RecipeError: the format is unknown.
    """
    place = locate(path, annotation_format)
    if place is None:
        known = ", ".join(FORMATS.names())
        hint = _hint(path)
        raise DataError(f"{path}: no annotation of a known format ({known}){hint}")
    return annotation_index(*place).categories


def _hint(path: Path) -> str:
    if not path.exists():
        return "; no such file or folder"
    example = first_file(path, ".json", ".xml", ".txt") if path.is_dir() else None
    return f"; for example {example} has another content" if example is not None else ""
