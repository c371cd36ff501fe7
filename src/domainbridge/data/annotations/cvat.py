"""CVAT for images: one XML file about many images.

Polygons and boxes are filled by pycocotools, as in CVAT's export of masks; ellipses by ``cv2.ellipse``. Shapes are
drawn in the order of ``z_order``, then of the file. Lines, points and tags have no area: they are counted and left out.
"""

import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import numpy as np

from domainbridge.data.annotations.base import Category, Drawing, Entry, Index, register_format
from domainbridge.data.annotations.reading import (
    beginning,
    damage_named,
    images_listed_twice,
    member_name,
    names_like,
    shapes_without_area,
)
from domainbridge.data.annotations.runs import mask_of_counts
from domainbridge.data.annotations.shapes import CocoPolygons, Ellipse, Mask, Points, Shape, polygon_points
from domainbridge.data.storage.tar import read_bytes
from domainbridge.data.storage.virtual import annotation_file, parsed
from domainbridge.errors import DataError

__all__ = ["Cvat"]

_EXPECTED = "an XML file of CVAT for images: annotations with image elements"
_AREAS = ("polygon", "box", "ellipse", "mask")
_Image = dict[str, ElementTree.Element]


@register_format("cvat")
class Cvat:
    """One XML file of "CVAT for images 1.1"."""

    title = "CVAT for images"
    background = True

    def find(self, path: Path) -> Path | None:
        files = names_like(path, ".xml") if path.is_dir() else [path] if path.suffix.lower() == ".xml" else []
        candidates = [file for file in files if "<annotations" in beginning(file, 4096)]
        if len(candidates) > 1:
            raise DataError(f"{path}: {len(candidates)} files of CVAT are here; name the one to read in labels")
        return candidates[0] if candidates else None

    def index(self, path: Path) -> Index:
        images, labels, tracks, twins = parsed(path, "cvat", _parse)
        problems = []
        if tracks:
            problems.append(f"{path}: {tracks} tracks of a video; export the task as 'CVAT for images 1.1' instead")
        shapes = [shape for image in images.values() for shape in image]
        left_out = Counter(shape.tag for shape in shapes if shape.tag not in _AREAS)
        notes = (*shapes_without_area(left_out), *images_listed_twice(path, twins))
        names = dict.fromkeys([*labels, *(str(s.get("label")) for s in shapes if s.tag in _AREAS)])
        entries = tuple(Entry((str(image.get("name")),), path / key) for key, image in images.items())
        return Index(tuple(Category(n) for n in names), entries, notes=notes, problems=tuple(problems))

    def draw(self, parts: tuple[Path, ...], root: Path) -> Drawing:
        file = annotation_file(parts[0])
        if file is None:
            raise DataError(f"{parts[0]}: no such file")
        image: ElementTree.Element | None = parsed(file, "cvat", _parse)[0].get(parts[0].relative_to(file).as_posix())
        if image is None:
            raise DataError(f"{parts[0]}: {file} has no such image")
        with damage_named(parts[0], "an image element with width, height, and shapes with label and points"):
            areas = [element for element in image if element.tag in _AREAS]
            areas.sort(key=lambda element: int(element.get("z_order", "0")))
            size = int(image.attrib["height"]), int(image.attrib["width"])
            return Drawing(*size, tuple((element.attrib["label"], _shape(element)) for element in areas))


def _parse(path: Path) -> tuple[_Image, list[str], int, list[str]]:
    """Images by their name below the file, names of labels, the number of tracks, and images that are listed twice.

    An image of several jobs is listed once per job: it has the shapes of all of them.
    """
    with damage_named(path, _EXPECTED):
        root = ElementTree.fromstring(read_bytes(path))
        if root.tag != "annotations":
            raise ValueError(f"the root element is {root.tag}")
        images: _Image = {}
        twins = []
        for image in root.iter("image"):
            key = member_name(image.attrib["name"])
            if images.setdefault(key, image) is not image:
                images[key].extend(image)
                twins.append(key)
        labels = [str(name.text) for name in root.iterfind("meta//labels/label/name")]
        return images, labels, len(root.findall("track")), twins


def _shape(element: ElementTree.Element) -> Shape:
    value = {name: float(text) for name, text in element.attrib.items() if name in _NUMBERS}
    if not all(math.isfinite(number) for number in value.values()):
        raise ValueError(f"{element.tag}: an attribute is not a number")
    if element.tag == "polygon":
        points = [pair.split(",") for pair in element.attrib["points"].split(";") if pair.strip()]
        return CocoPolygons((polygon_points(points),))
    if element.tag == "mask":
        counts = [int(number) for number in element.attrib["rle"].split(",")]
        mask = mask_of_counts(counts, int(value["height"]), int(value["width"]))
        return Mask(mask, int(value["left"]), int(value["top"]))
    if element.tag == "ellipse":
        center, radii = polygon_points([value[key] for key in ("cx", "cy", "rx", "ry")], least=2)
        return Ellipse((center[0], center[1]), (radii[0], radii[1]), value.get("rotation", 0.0))
    low_x, low_y, high_x, high_y = (value[key] for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = polygon_points([low_x, low_y, high_x, low_y, high_x, high_y, low_x, high_y])
    return CocoPolygons((_turned(corners, value.get("rotation", 0.0)),))


_NUMBERS = frozenset(["width", "height", "left", "top", "cx", "cy", "rx", "ry", "rotation", "xtl", "ytl", "xbr", "ybr"])


def _turned(corners: Points, degrees: float) -> Points:
    """Corners turned clockwise around their middle."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = corners.mean(axis=0)
    turned: Points = (corners - middle) @ turn + middle
    return turned
