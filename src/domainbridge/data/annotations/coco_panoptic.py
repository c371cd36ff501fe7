"""COCO panoptic: a PNG per image with the number of a segment per pixel (R + 256 G + 65536 B), and one JSON file."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, Painted, register_format
from domainbridge.data.annotations.coco import category_names, coco_file, id_text, unlisted_categories
from domainbridge.data.annotations.reading import damage_named, read_json_file, whole
from domainbridge.data.decode import read_image
from domainbridge.data.storage.virtual import parsed
from domainbridge.errors import DataError, FileError

__all__ = ["CocoPanoptic"]

_EXPECTED = "a COCO panoptic file: JSON with images, categories, and annotations of file_name and segments_info"


@register_format("coco-panoptic")
class CocoPanoptic:
    """``panoptic.json`` beside the folder ``panoptic`` of PNGs. Segment 0 is void."""

    title = "COCO panoptic"
    background = False

    def find(self, path: Path) -> Path | None:
        beside = path.with_name(f"{path.name}.json")
        if path.is_dir() and beside.is_file():
            return coco_file(beside, panoptic=True)
        return coco_file(path, panoptic=True)

    def index(self, path: Path) -> Index:
        content = read_json_file(path, _EXPECTED)
        with damage_named(path, _EXPECTED):
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
            given = [(names.get(a["image_id"]), str(a["file_name"])) for a in content["annotations"]]
            listed = category_names(content)
            categories = tuple(Category(name, number) for number, name in listed.items())
            known = {str(number) for number in listed}
            used = Counter(id_text(s["category_id"]) for a in content["annotations"] for s in a["segments_info"])
        folder = next(
            (f for f in (path.with_suffix(""), path.parent) if f.is_dir() and given and (f / given[0][1]).is_file()),
            None,
        )
        if folder is None:
            problem = f"{path}: its PNG files are expected in the folder {path.with_suffix('')}"
            return Index(categories, (), (path,), problems=(problem,))
        missing = [png for _, png in given if not (folder / png).is_file()]
        notes = [f"PNG files that do not exist: {len(missing)} of {len(given)}, e.g. {missing[0]}"] if missing else []
        notes += unlisted_categories(path, Counter({c: count for c, count in used.items() if c not in known}))
        gone = set(missing)
        entries = tuple(Entry((name or png,), folder / png) for name, png in given if png not in gone)
        return Index(categories, entries, (path,), tuple(notes))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        json_file, png = parts[:2]
        segments, names = parsed(json_file, "panoptic segments", _segments)
        rgb = read_image(png).astype(np.int32)
        numbers = rgb[..., 0] | (rgb[..., 1] << 8) | (rgb[..., 2] << 16)
        category_of = segments.get(png.name)
        if category_of is None:
            raise DataError(f"{json_file}: no annotation with file_name {png.name}")
        in_pixels = {number for number in category_of if 0 <= number < 2**24}  # a pixel holds no other number
        known = np.array(sorted(in_pixels | {0}), np.int32)
        place = np.searchsorted(known, numbers).clip(max=len(known) - 1)
        unknown = known[place] != numbers
        if unknown.any():
            raise FileError(
                png,
                f"{unknown.mean():.1%} of the pixels have a segment, such as {numbers[unknown][0]}, that "
                f"{json_file} does not list; is the JSON file that of these PNG files?",
                f"pixels have segments that {json_file} does not list",
            )
        order = list(names)
        to_index = np.array(
            [order.index(category_of[n]) if category_of.get(n) in names else len(order) for n in known.tolist()],
            np.uint16,
        )
        return Drawing(numbers.shape[0], numbers.shape[1], painted=Painted(to_index[place], tuple(names.values())))


def _segments(path: Path) -> tuple[dict[str, dict[int, int]], dict[int, str]]:
    """PNG's name -> (segment -> category id), and category id -> name."""
    content: Any = read_json_file(path, _EXPECTED)
    with damage_named(path, _EXPECTED):
        segments = {
            Path(str(a["file_name"])).name: {
                whole(s["id"], "id"): whole(s["category_id"], "category_id") for s in a["segments_info"]
            }
            for a in content["annotations"]
        }
        return segments, category_names(content)
