"""The decoder of annotations: from the label of an image to train ids."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.data.annotations.base import FORMATS, Drawing
from domainbridge.data.annotations.reading import damage_named
from domainbridge.data.annotations.shapes import Canvas
from domainbridge.data.storage.virtual import is_set_path, real_files
from domainbridge.files import digest_bytes
from domainbridge.types import IGNORE

__all__ = ["AnnotationLabels"]


@dataclass(frozen=True)
class AnnotationLabels:
    """Labels in an annotation format.

    Attributes:
        format: name of the format.
        root: file or folder of the annotation.
        train_ids: category -> train id; other categories are ignored (255).
        unannotated: train id of pixels without annotation.
        notes: remarks about the map, each a sentence.
    """

    format: str
    root: Path
    train_ids: Mapping[str, int]
    unannotated: int
    notes: tuple[str, ...] = field(default=(), compare=False)

    def fingerprint(self) -> str:
        """A text that changes if the same files would give other train ids."""
        content = [self.format, sorted(self.train_ids.items()), self.unannotated]
        return digest_bytes(json.dumps(content).encode())

    def compose(self, table: NDArray[np.uint8]) -> "AnnotationLabels":
        """Decoder of the same files that maps the train ids further by ``table``, uint8 (256,)."""
        train_ids = {name: int(table[train_id]) for name, train_id in self.train_ids.items()}
        return replace(self, train_ids=train_ids, unannotated=int(table[self.unannotated]))

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Train ids, uint8 (height, width).

        Args:
            path: of an entry of the listing; may be virtual (``data/storage/virtual.py``).

        Raises:
            DataError: a file is unreadable or damaged; a package that fills the areas is missing.
        """
        return self.look(path)[0]

    def look(self, path: Path) -> tuple[NDArray[np.uint8], Mapping[int, int]]:
        """Train ids as :meth:`read` gives them, and color -> number of pixels of the colors that no category has.

        Raises:
            DataError: as for :meth:`read`.
        """
        parts = real_files(path) if is_set_path(str(path)) else (path,)
        drawing = FORMATS[self.format].draw(parts, self.root)
        with damage_named(path, "shapes inside an image"):
            return self._paint(drawing), drawing.unnamed

    def _paint(self, drawing: Drawing) -> NDArray[np.uint8]:
        canvas = Canvas(drawing.height, drawing.width, self.unannotated)
        if drawing.painted is not None:
            index, names = drawing.painted.index, drawing.painted.names
            table = np.full(max(len(names) + 1, 256), self.unannotated, np.uint8)
            table[: len(names)] = [self.train_ids.get(name, IGNORE) for name in names]
            if index.dtype == np.uint8:
                canvas.array[:] = cv2.LUT(index, table[:256])
            else:
                canvas.array[:] = table[index.clip(max=len(names))]
        for name, shape in drawing.shapes:
            shape.draw(canvas, self.train_ids.get(name, IGNORE))
        return canvas.array
