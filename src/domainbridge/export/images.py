"""The images of an export: for the check, for the ranges of int8, and for the size that is suggested."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.dataset import FileDataset, evenly_spread
from domainbridge.data.folder import Listing
from domainbridge.data.headers import read_header
from domainbridge.data.transforms import resize_image
from domainbridge.evaluation.evaluate import ScoringRule
from domainbridge.evaluation.label_maps import check_classes_occur
from domainbridge.evaluation.labeled_files import LabeledFiles, scoring_of
from domainbridge.evaluation.predictor import Predictor
from domainbridge.export.quantize import CALIBRATION_IMAGES

__all__ = ["Chosen", "at_network", "chosen", "suggested_size", "window_of"]

_SIDE = 1024
"""Pixels of the longest side of an image that ranges are measured on, and of a size that images suggest."""
_USUAL = (512, 512)
"""Crop of the published training."""

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class Chosen:
    """Images of the check, images for the ranges of int8 (at the network's size), and the labels."""

    images: list[Path]
    calibration: list[Pixels]
    labeled: tuple[FileDataset, ScoringRule] | None


def chosen(
    predictor: Predictor, files: LabeledFiles | Listing, count: int, precision: str, size: Size | None
) -> Chosen:
    """Images evenly spread over the folder.

    Args:
        predictor: see there.
        files: images, or images with labels.
        count: images of the check.
        precision: int8 needs images for its ranges.
        size: (height, width) of the graph's images; None: any.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    labeled = None
    if isinstance(files, LabeledFiles):
        dataset, rule = scoring_of(predictor, files)
        check_classes_occur(dataset, rule.space, "export: --labels")
        some = evenly_spread(len(dataset), count)
        assert dataset.labels is not None
        images, labels = (tuple(paths[i] for i in some) for paths in (dataset.images, dataset.labels))
        labeled = replace(dataset, images=images, labels=labels), rule
    paths = files.listing.images if isinstance(files, LabeledFiles) else files.images
    ranges = []
    if precision == "int8":
        for index in evenly_spread(len(paths), CALIBRATION_IMAGES):
            image = at_network(predictor, predictor.read(paths[index]))
            whole = np.ascontiguousarray(image[:_SIDE, :_SIDE])
            ranges.append(whole if size is None else window_of(predictor, image, size)[0])
    return Chosen([paths[i] for i in evenly_spread(len(paths), count)], ranges, labeled)


def at_network(predictor: Predictor, image: Pixels) -> Pixels:
    """An image, RGB, uint8 (height, width, 3), at the network's size."""
    return image if predictor.resize is None else resize_image(image, predictor.resize.size_for(*image.shape[:2]))


def window_of(predictor: Predictor, image: Pixels, size: Size) -> tuple[Pixels, Size]:
    """The middle of an image at exactly a size, padded where the image is smaller, and the size of the image in it.

    Args:
        predictor: whose mean color is the padding, rounded.
        image: RGB, uint8 (height, width, 3), at the network's size.
        size: (height, width).
    """
    tall, wide = (min(side, most) for side, most in zip(image.shape, size, strict=False))
    top, left = (image.shape[0] - tall) // 2, (image.shape[1] - wide) // 2
    window = np.empty((*size, 3), np.uint8)
    window[:] = np.rint(255 * predictor.network.mean.cpu().numpy().ravel())
    window[:tall, :wide] = image[top : top + tall, left : left + wide]
    return window, (tall, wide)


def suggested_size(predictor: Predictor, images: Sequence[Path]) -> tuple[Size, str]:
    """A (height, width) for a network that does not export for every size, and where it comes from.

    The commonest size of the images at the network, where they pass in one piece then; else the crop of training.

    Args:
        predictor: see there.
        images: the user's; none: nothing is known of them.
    """
    upright = predictor.image_rule.exif == "upright"
    sizes = (read_header(path, largest=None).size(upright=upright) for path in images)
    commonest = Counter(predictor.input_size(*size) for size in sizes).most_common(1)
    if commonest and max(commonest[0][0]) <= _SIDE:
        return commonest[0][0], f"the size of most of the {len(images)} --images that were looked at"
    if predictor.training_sizes is not None:
        return predictor.training_sizes.crop, "the crop of the training"
    return _USUAL, "the usual crop of training"
