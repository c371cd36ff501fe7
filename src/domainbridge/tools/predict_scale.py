"""Whether the files to segment have the scale of the training images, told once for all of them."""

from collections.abc import Sequence

import cv2

from domainbridge.data.dataset import evenly_spread
from domainbridge.data.headers import read_header
from domainbridge.data.threads import in_threads
from domainbridge.data.training_sizes import Size
from domainbridge.errors import DataError
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.tools.predict_inputs import Input

__all__ = ["scale_note"]

_MOST = 1000
"""Inputs whose headers are read: a second on a slow disk."""


def scale_note(model: SegmentationModel, items: Sequence[Input]) -> str | None:
    """A sentence if some inputs reach the network at another scale than the training images; else None.

    Maps are left out: a map of any size may have the training's meters per pixel. So are files that cannot be read.
    """
    sizes = model.training_sizes
    if sizes is None or sizes.main is None:
        return None
    known = [item for item in items if item.kind != "map"]
    chosen = [known[index] for index in evenly_spread(len(known), _MOST)]
    upright = model.image_rule.exif == "upright"

    def look(index: int) -> Size | None:
        size = _size(chosen[index], upright=upright)
        return None if size is None else model.input_size(*size)

    at_network = [size for size in in_threads(look, range(len(chosen))) if size is not None]
    others = sorted((size for size in at_network if sizes.differs(size)), key=lambda size: (size[0] * size[1], size))
    if not others:
        return None
    looked_at = "" if len(chosen) == len(known) else f" that were looked at ({len(known)} in all)"
    height, width = sizes.main.median
    return (
        f"{len(others)} of {len(at_network)} inputs{looked_at} have another scale than the images of training: "
        f"{sizes.comparison(others[len(others) // 2])}. --resize {width}x{height} brings every input to the size of "
        "training, and the results keep the size of the input; leave the option out where objects have as many pixels "
        "as in training"
    )


def _size(item: Input, *, upright: bool) -> Size | None:
    """(height, width) of an image or of a video's frames, from the header; None: not readable."""
    if item.kind == "video":
        video = cv2.VideoCapture(str(item.path))
        size = int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(video.get(cv2.CAP_PROP_FRAME_WIDTH))
        video.release()
        return size if min(size) > 0 else None
    try:
        return read_header(item.path, largest=None).size(upright=upright)
    except (DataError, MemoryError):
        return None
