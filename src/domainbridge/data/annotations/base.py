"""Annotation formats: labels as other tools export them, one module per format.

A format finds its files, lists the annotated images, and draws the label of one image. Another distribution adds
formats as entry points of the group ``domainbridge.annotations``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.shapes import Shape
from domainbridge.registry import Registry

__all__ = ["FORMATS", "AnnotationFormat", "Category", "Drawing", "Entry", "Index", "Painted", "register_format"]


@dataclass(frozen=True)
class Category:
    """A category of an annotation; ``id`` is the number in the files, None if names are all they have."""

    name: str
    id: int | None = None


@dataclass(frozen=True)
class Entry:
    """One annotated image.

    Attributes:
        images: possible names of the image, the most exact first; relative paths, with or without ending.
        label: path of the label, a file or virtual (``data/storage/virtual.py``).
    """

    images: tuple[str, ...]
    label: Path


@dataclass(frozen=True)
class Index:
    """What an annotation is about.

    Attributes:
        categories: in the order of the files.
        entries: one per annotated image.
        companions: files that decide every label too, such as a list of class names.
        notes: remarks, each a sentence.
        problems: reasons against training, each a sentence.
        needs_image: the label of an image depends on the size of the image.
        by_order: the files do not name the images; entries are in the order of the images, as far as one can know.
    """

    categories: tuple[Category, ...]
    entries: tuple[Entry, ...]
    companions: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    needs_image: bool = False
    by_order: bool = False


@dataclass(frozen=True, eq=False)
class Painted:
    """A category for every pixel.

    Attributes:
        index: position in ``names``; ``len(names)`` and more is no category; uint8 or uint16 (height, width).
        names: of categories.
    """

    index: NDArray[np.uint8] | NDArray[np.uint16]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Drawing:
    """The annotation of one image.

    Attributes:
        height: pixels.
        width: pixels.
        painted: category of every pixel, below all shapes; None for none.
        shapes: category name and area, the lowest first; an area covers the areas before it.
        left_out: kinds of shapes that have no area, one item per shape.
        unnamed: color as a 24-bit number -> number of pixels, of the colors that no category has.
    """

    height: int
    width: int
    shapes: tuple[tuple[str, Shape], ...] = ()
    painted: Painted | None = None
    left_out: tuple[str, ...] = ()
    unnamed: Mapping[int, int] = field(default_factory=dict)


class AnnotationFormat(Protocol):
    """One format.

    Attributes:
        title: name of the format in words.
        background: pixels without a shape are background by default; False for formats in which they are void.
    """

    title: str
    background: bool

    def find(self, path: Path) -> Path | None:
        """The file or folder that :meth:`index` reads, if ``path`` has this format; no more than a few files are read.

        Args:
            path: file or folder, as the user names it.
        """
        ...

    def index(self, path: Path) -> Index:
        """Categories and images of an annotation.

        Args:
            path: what :meth:`find` returned.

        Raises:
            DataError: a file is unreadable or damaged.
        """
        ...

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        """The annotation of one image.

        Args:
            parts: the index's companions, the entry's label (several paths for a set path), and the image if the
                index needs it.
            root: what :meth:`find` returned.

        Raises:
            DataError: a file is unreadable or damaged.
        """
        ...


FORMATS: Registry[AnnotationFormat] = Registry(
    "annotation_format", "domainbridge.data.annotations", "domainbridge.annotations"
)


def register_format(name: str) -> Callable[[type[AnnotationFormat]], type[AnnotationFormat]]:
    """Class decorator: know an instance of the format by its name in recipes."""

    def keep(kind: type[AnnotationFormat]) -> type[AnnotationFormat]:
        FORMATS.register(name)(kind())
        return kind

    return keep
