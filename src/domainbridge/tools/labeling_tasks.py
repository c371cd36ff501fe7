"""Images to label as tasks of Label Studio and as an XML file of CVAT for images."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.data.label_spaces import LabelSpace

__all__ = ["Region", "Task", "cvat_xml", "label_studio_json", "regions"]

_LEAST_AREA = 0.0005
"""Least share of the image's pixels of a region that becomes a polygon."""
_TOLERANCE = 0.002
"""Largest distance of a polygon from its region, as a share of the longer side of the image."""


@dataclass(frozen=True)
class Region:
    """A connected part of a class map.

    Attributes:
        train_id: its class.
        points: corners (x, y) in pixels, float64 (corners, 2).
    """

    train_id: int
    points: NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """An image to label.

    Attributes:
        name: path below the images folder, with forward slashes.
        height: pixels of the stored image.
        width: likewise.
        regions: what the model predicts there.
    """

    name: str
    height: int
    width: int
    regions: tuple[Region, ...] = ()


def label_studio_json(tasks: Sequence[Task], space: LabelSpace) -> str:
    """Tasks with the model's regions as predictions.

    Images are addressed as files below ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT``, which is to be the images folder.
    """
    entries = []
    for task in tasks:
        result = [
            {
                "id": f"region-{number}",
                "from_name": "label",
                "to_name": "image",
                "type": "polygonlabels",
                "original_width": task.width,
                "original_height": task.height,
                "image_rotation": 0,
                "value": {
                    "points": [
                        [round(100 * x / task.width, 3), round(100 * y / task.height, 3)]
                        for x, y in region.points.tolist()
                    ],
                    "polygonlabels": [space.classes[region.train_id]],
                    "closed": True,
                },
            }
            for number, region in enumerate(task.regions)
        ]
        image = {"image": f"/data/local-files/?d={quote(task.name)}"}
        entries.append({"data": image, "predictions": [{"model_version": "domainbridge", "result": result}]})
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    return f"[\n{lines}\n]\n"


def cvat_xml(tasks: Sequence[Task], space: LabelSpace) -> str:
    """An XML file of "CVAT for images 1.1": labels with their colors, images with their sizes, and no shape."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    ElementTree.SubElement(meta, "size").text = str(len(tasks))
    labels = ElementTree.SubElement(meta, "labels")
    for name, (red, green, blue) in zip(space.classes, space.colors, strict=True):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = f"#{red:02x}{green:02x}{blue:02x}"
    for number, task in enumerate(tasks):
        attributes = {"id": str(number), "name": task.name, "width": str(task.width), "height": str(task.height)}
        ElementTree.SubElement(root, "image", attributes)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def regions(prediction: NDArray[np.uint8], num_classes: int) -> tuple[Region, ...]:
    """Simplified outlines of a class map's connected regions; larger ones first, so that small ones lie on top.

    Holes are not cut out: what lies in a hole is a region of its own. Tiny regions are left out.

    Args:
        prediction: train ids, uint8 (height, width).
        num_classes: K.
    """
    height, width = prediction.shape
    outlines = []
    for train_id in range(num_classes):
        mask = (prediction == train_id).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            points = cv2.approxPolyDP(contour, _TOLERANCE * max(height, width), closed=True)[:, 0].astype(np.float64)
            area = cv2.contourArea(contour)
            if area >= _LEAST_AREA * height * width and len(points) >= 3:
                outlines.append((area, Region(train_id, points)))
    outlines.sort(key=lambda outline: -outline[0])
    return tuple(region for _, region in outlines)
