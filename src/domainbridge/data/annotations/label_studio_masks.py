"""Label Studio's export of brushes as PNG (or .npy): ``task-1-annotation-9-by-1-tag-crack-0.png``, a mask per class.

The names hold the number of a task and not of an image. The JSON export of the same project, in the same folder or
above it, leads from one to the other. Without it, the order of the tasks is taken for that of the images.
"""

import re
from collections import defaultdict
from pathlib import Path

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.class_masks import drawn_masks
from domainbridge.data.annotations.label_studio import LabelStudio, task_images
from domainbridge.data.annotations.reading import first_names, names_below
from domainbridge.data.storage.virtual import set_path

__all__ = ["LabelStudioMasks"]

_NAME = re.compile(r"task-(?P<task>\d+)(-annotation-\d+)?(-by-[^-]+)?-tag-(?P<tag>.+)-\d+\.(png|npy)", re.IGNORECASE)


@register_format("label-studio-masks")
class LabelStudioMasks:
    """A folder of masks, named by task and tag."""

    title = "Label Studio masks"
    background = True

    def find(self, path: Path) -> Path | None:
        return path if path.is_dir() and any(_match(name) for name in first_names(path, 200)) else None

    def index(self, path: Path) -> Index:
        masks: dict[int, list[tuple[str, Path]]] = defaultdict(list)
        for name in names_below(path):
            if (match := _match(name)) is not None:
                masks[int(match["task"])].append((match["tag"], path / name))
        categories = tuple(Category(name) for name in sorted({tag for group in masks.values() for tag, _ in group}))
        export = next((file for place in (path, path.parent) if (file := LabelStudio().find(place))), None)
        images = task_images(export) if export is not None else {}
        entries = tuple(
            Entry(images.get(str(task), (f"task {task}",)), set_path([mask for _, mask in group]))
            for task, group in sorted(masks.items())
        )
        companions_note = (f"{export} says which image a task is about",) if export is not None else ()
        return Index(categories, entries, notes=companions_note, by_order=export is None)

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        matches = [(_match(mask.name), mask) for mask in parts]
        return drawn_masks([(match["tag"], mask) for match, mask in matches if match is not None])


def _match(name: str) -> re.Match[str] | None:
    return _NAME.fullmatch(name.rpartition("/")[2])
