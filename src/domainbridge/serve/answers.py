"""What a request gets: class map, colors or overlay as PNG, or JSON with class shares and runs."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.evaluation.segmentation_model import SegmentationModel

__all__ = ["OUTPUTS", "answer", "run_lengths", "scale_remark"]

OUTPUTS = ("class", "color", "overlay", "confidence", "json")
"""Values of the request's ``output``."""
_MIXED = 0.5
"""Share of the classes' colors in an overlay."""

Pixels = NDArray[np.uint8]


def answer(
    predictor: SegmentationModel, image: Pixels, output: str, *, runs: bool = False
) -> tuple[bytes | dict[str, Any], str]:
    """Segment an image: the content and its media type.

    Args:
        predictor: a loaded model.
        image: RGB, uint8 (height, width, 3).
        output: one of ``OUTPUTS``: class (train ids), color, overlay, confidence or json.
        runs: with json: also the class map as run lengths.

    Raises:
        DomainbridgeError: the network cannot take the image, or gives values that are not numbers.
    """
    json = output == "json"
    maps = predictor.maps([image], confidence=json or output == "confidence")[0]
    classes, sure = maps.classes, maps.confidence
    if json:
        assert sure is not None
        remark = scale_remark(predictor, image)
        facts = _facts(predictor, classes, sure, runs=runs)
        return facts if remark is None else facts | {"note": remark}, "application/json"
    return _png(_picture(predictor, image, classes, sure, output)), "image/png"


def scale_remark(predictor: SegmentationModel, image: Pixels) -> str | None:
    """A sentence if an image reaches the network at another scale than the training images; else None."""
    sizes, size = predictor.training_sizes, predictor.input_size(image.shape[0], image.shape[1])
    if sizes is None or not sizes.differs(size):
        return None
    return (
        f"another scale than the images of training: {sizes.comparison(size)}; send the image in the size of training"
    )


def run_lengths(classes: Pixels) -> list[list[int]]:
    """A class map row by row as [train id, number of pixels] pairs."""
    flat = classes.ravel()
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    lengths = np.diff(np.append(starts, flat.size))
    runs: list[list[int]] = np.stack([flat[starts].astype(np.int64), lengths], axis=1).tolist()
    return runs


def _facts(predictor: SegmentationModel, classes: Pixels, sure: Pixels, *, runs: bool) -> dict[str, Any]:
    """Shares and mean confidence of the classes that occur, largest first."""
    number = len(predictor.classes)
    counts = np.bincount(classes.ravel(), minlength=number)
    sums = np.bincount(classes.ravel(), weights=sure.ravel(), minlength=number)
    order = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    height, width = classes.shape
    facts: dict[str, Any] = {
        "width": width,
        "height": height,
        "classes": [
            {
                "id": index,
                "name": predictor.classes[index],
                "color": "#{:02x}{:02x}{:02x}".format(*predictor.palette[index].tolist()),
                "share": float(counts[index] / classes.size),
                "confidence": float(sums[index] / counts[index] / 255),
            }
            for index in order
        ],
    }
    return facts | {"runs": run_lengths(classes)} if runs else facts


def _picture(predictor: SegmentationModel, image: Pixels, classes: Pixels, sure: Pixels | None, output: str) -> Pixels:
    if output == "class":
        return classes
    if output == "confidence":
        assert sure is not None
        return sure
    colors = predictor.palette[classes]
    if output == "color":
        return colors
    return cv2.addWeighted(image, 1 - _MIXED, colors, _MIXED, 0).astype(np.uint8, copy=False)


def _png(pixels: Pixels) -> bytes:
    """A gray or RGB picture as PNG."""
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return content.tobytes()
