"""COCO stuff as pixel maps: a PNG per image with category ids, and the JSON file with their names beside the folder."""

from pathlib import Path

import numpy as np

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, Painted, register_format
from domainbridge.data.annotations.coco import category_names, coco_json
from domainbridge.data.annotations.reading import damage_named, names_below, read_json_file
from domainbridge.data.index_image import read_index_image
from domainbridge.data.storage.virtual import parsed

__all__ = ["CocoStuff"]

_ENDING = "_pixelmaps"
_EXPECTED = "a COCO file: JSON with images, annotations and categories"


@register_format("coco-stuff")
class CocoStuff:
    """The folder ``stuff_pixelmaps`` of PNGs beside ``stuff.json``. Ids without a category are void."""

    title = "COCO stuff pixel maps"
    background = False

    def find(self, path: Path) -> Path | None:
        return path if path.is_dir() and path.name.endswith(_ENDING) and coco_json(_names(path))[0] else None

    def index(self, path: Path) -> Index:
        categories = tuple(Category(name, number) for number, name in _categories(_names(path)).items())
        entries = tuple(Entry((name[:-4],), path / name) for name in names_below(path) if name.lower().endswith(".png"))
        return Index(categories, entries, (_names(path),))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        names = parsed(parts[0], "categories", _categories)
        values = read_index_image(parts[1], spread=())
        table = np.full(2**16, len(names), np.uint16)
        table[list(names)] = np.arange(len(names))
        return Drawing(values.shape[0], values.shape[1], painted=Painted(table[values], tuple(names.values())))


def _names(folder: Path) -> Path:
    return folder.with_name(f"{folder.name.removesuffix(_ENDING)}.json")


def _categories(path: Path) -> dict[int, str]:
    content = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        return {number: name for number, name in category_names(content).items() if 0 <= number < 2**16}
