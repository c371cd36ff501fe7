"""Polygons of a class map in the formats that labeling tools and GIS programs open: GeoJSON, LabelMe, COCO."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainbridge.data.raster import GeoReference
from domainbridge.tools.polygons import Region, Ring

__all__ = ["Facts", "coco_annotation", "coco_categories", "geojson", "labelme"]

_DIGITS = 2
"""Decimals of a coordinate in pixels."""
_DEGREE_DIGITS = 8


@dataclass(frozen=True)
class Facts:
    """What polygon files say about their image.

    Attributes:
        path: of the image.
        size: (height, width).
        classes: names by train id.
    """

    path: Path
    size: tuple[int, int]
    classes: Sequence[str]


def geojson(regions: Iterable[Region], facts: Facts, place: GeoReference | None) -> Iterator[str]:
    """The text of a feature collection, piece by piece.

    Coordinates are longitude and latitude (RFC 7946) where the image has a coordinate system; its plain coordinates
    where the image has a place without a system; else pixels, x to the right and y down from the upper left corner.
    """
    yield '{"type": "FeatureCollection", "features": ['
    for number, region in enumerate(regions):
        rings = [_closed(ring, place) for ring in (region.outer, *region.holes)]
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": rings}
        if place is not None and place.crs is not None:
            from rasterio.warp import transform_geom

            geometry = transform_geom(place.crs, "EPSG:4326", geometry, precision=_DEGREE_DIGITS)
        properties = {"class": facts.classes[region.train_id], "id": region.train_id, "pixels": round(region.area, 1)}
        feature = {"type": "Feature", "properties": properties, "geometry": geometry}
        yield (",\n" if number else "\n") + json.dumps(feature)
    yield "\n]}\n"


def labelme(regions: Iterable[Region], facts: Facts, output: Path) -> str:
    """The text of a LabelMe file, without the image's pixels; the larger polygons lie below the smaller ones."""
    shapes = [
        {
            "label": facts.classes[region.train_id],
            "points": region.outer.round(_DIGITS).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for region in regions
    ]
    height, width = facts.size
    content: dict[str, Any] = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": os.path.relpath(facts.path.absolute(), output.absolute().parent),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def coco_annotation(region: Region) -> dict[str, Any]:
    """A region as an annotation without its ids. COCO's polygons have no holes; what fills a hole comes later."""
    low, high = region.outer.min(axis=0), region.outer.max(axis=0)
    box = [*low.tolist(), *(high - low).tolist()]
    return {
        "category_id": region.train_id + 1,
        "segmentation": [region.outer.round(_DIGITS).flatten().tolist()],
        "area": round(region.area, _DIGITS),
        "bbox": [round(value, _DIGITS) for value in box],
        "iscrowd": 0,
    }


def coco_categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """The classes; COCO's numbers begin with 1."""
    return [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(classes, 1)]


def _closed(ring: Ring, place: GeoReference | None) -> list[list[float]]:
    """A ring that ends where it begins, in the units of ``place``."""
    ring = np.concatenate([ring, ring[:1]])
    if place is None:
        return ring.round(_DIGITS).tolist()  # type: ignore[no-any-return]
    return [
        [*(place.transform @ (x, y) if hasattr(place.transform, "__matmul__") else place.transform * (x, y))]
        for x, y in ring.tolist()
    ]
