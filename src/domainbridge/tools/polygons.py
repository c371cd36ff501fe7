"""Class maps as polygons: the outline of every connected region of a class."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

__all__ = ["Region", "filled_outlines", "regions_of_file", "traced_regions"]

Ring = NDArray[np.float64]
"""float64 (n, 2): x to the right and y down, in pixels; the last point is not the first one."""


@dataclass(frozen=True)
class Region:
    """A connected region of a class.

    Attributes:
        train_id: of the class.
        outer: its outline.
        holes: outlines of what is inside and belongs to other classes.
        area: of the outline without the holes, in pixels; of an outline through centers: its pixels, holes too.
    """

    train_id: int
    outer: Ring
    holes: tuple[Ring, ...]
    area: float


def traced_regions(classes: NDArray[np.uint8], min_area: float, tolerance: float) -> list[Region]:
    """Regions along the borders of the pixels: the center of the upper left pixel is (0.5, 0.5). The largest first.

    Corners are cut by half a pixel, so that every center of a pixel is inside or outside as its class says.

    Args:
        classes: train ids, uint8 (height, width); 255 gives no region.
        min_area: pixels; smaller regions and holes are left out.
        tolerance: pixels that a simplified outline may be off.
    """
    regions: list[Region] = []
    for train_id, top, left, mask in _masks(classes):
        padded = np.pad(mask, 1).astype(np.float32)
        tracer = contour_generator(z=padded, fill_type=FillType.OuterOffset)
        for points, offsets in zip(*tracer.filled(0.5, 1.5), strict=True):
            # Position 0 of the padded mask is the center of the pixel before the first one.
            corner = np.array([left - 0.5, top - 0.5])
            rings = [points[first : last - 1] + corner for first, last in pairwise(offsets.tolist())]
            regions += _region(train_id, rings, min_area, tolerance)
    return sorted(regions, key=lambda region: -region.area)


def filled_outlines(classes: NDArray[np.uint8], min_area: float, tolerance: float) -> list[Region]:
    """Regions without holes, outlined through the centers of their border pixels: (0, 0) is the upper left pixel.

    Filled with their outlines, the largest first, they give the class map again: what is inside another region has its
    own region. Arguments are those of :func:`traced_regions`.
    """
    regions: list[Region] = []
    for train_id, top, left, mask in _masks(classes):
        # Neighbors by a side, not by a corner: so no region lies partly inside another one.
        _, numbers, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
        for number, (x, y, width, height, pixels) in enumerate(boxes.tolist()):
            if not number or pixels < min_area:
                continue
            part = (numbers[y : y + height, x : x + width] == number).astype(np.uint8)
            (contour, *_), _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            outline = contour[:, 0].astype(np.float64) + np.array([left + x, top + y])
            # Pixels on and inside an outline of whole numbers (Pick's theorem), holes too.
            filled = cv2.contourArea(contour) + _steps(contour[:, 0]) / 2 + 1
            simple = _simplified(outline, tolerance)
            if len(simple) >= 3:
                regions.append(Region(train_id, simple, (), filled))
    return sorted(regions, key=lambda region: -region.area)


def _steps(points: NDArray[np.int32]) -> int:
    """Points with whole coordinates on an outline of horizontal, vertical and diagonal lines."""
    return int(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())


def regions_of_file(path: Any, train_ids: NDArray[np.uint8], min_area: float, tolerance: float) -> Iterator[Region]:
    """Regions of a class map in a file of any size, along the borders of the pixels, as GDAL finds them.

    Args:
        path: of a one-band file that rasterio reads.
        train_ids: train id per value of the file, uint8 (256,); 255 gives no region.
        min_area: see :func:`traced_regions`.
        tolerance: likewise.
    """
    import rasterio
    from rasterio.features import shapes

    with rasterio.open(path) as file:
        band: Any = rasterio.band(file, 1)  # type: ignore[no-untyped-call]
        back = ~file.transform  # rasterio gives coordinates of the file's reference system
        linear, corner = np.array([[back.a, back.d], [back.b, back.e]]), np.array([back.c, back.f])
        for geometry, value in shapes(band, connectivity=4):
            train_id = int(train_ids[int(value)])
            if train_id != 255:
                rings = [(np.asarray(ring[:-1]) @ linear + corner).round() for ring in geometry["coordinates"]]
                yield from _region(train_id, rings, min_area, tolerance)


def _masks(classes: NDArray[np.uint8]) -> Iterator[tuple[int, int, int, NDArray[np.bool_]]]:
    """(train id, top, left, mask of the smallest box around its pixels) of every class of a map."""
    for train_id in np.unique(classes).tolist():
        if train_id == 255:
            continue
        mask = classes == train_id
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        yield train_id, top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1]


def _region(train_id: int, rings: Sequence[Ring], min_area: float, tolerance: float) -> Iterable[Region]:
    """The region of an outline and its holes; nothing if the outline is too small."""
    areas = [_area(ring) for ring in rings]
    if areas[0] < max(min_area, 0.5):
        return []
    kept = [(ring, area) for ring, area in zip(rings[1:], areas[1:], strict=True) if area >= max(min_area, 0.5)]
    outer = _simplified(rings[0], tolerance)
    holes = tuple(simple for ring, _ in kept if len(simple := _simplified(ring, tolerance)) >= 3)
    return [Region(train_id, outer, holes, areas[0] - sum(area for _, area in kept))] if len(outer) >= 3 else []


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Fewer points (Douglas-Peucker), at most ``tolerance`` pixels off; a ring that would vanish stays as it is."""
    if not tolerance:
        return ring
    simple = cv2.approxPolyDP(ring.astype(np.float32), tolerance, closed=True)[:, 0].astype(np.float64)
    return simple if len(simple) >= 3 else ring
