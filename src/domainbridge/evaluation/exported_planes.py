"""Logits of an exported network's windows as planes of one class each and the class of a pixel; without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.evaluation.windows import Box, fits_in_one_piece, large_image_windows

__all__ = ["ClassPlanes", "View", "most_probable", "probabilities_of", "views_of"]

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """A window: what the network sees, and the part of it that the window gives."""

    box: Box
    core: Box


def views_of(height: int, width: int) -> Sequence[View]:
    """Windows over an image of that size, or all of it."""
    if fits_in_one_piece(height, width):
        whole = Box(0, height, 0, width)
        return [View(whole, whole)]
    windows = large_image_windows(height, width)
    return [View(box, core) for box, core in zip(windows.views, windows.cores, strict=True)]


class ClassPlanes:
    """Logits of a part of the result, a class at a time."""

    def __init__(
        self, seen: Sequence[tuple[View, NDArray[np.float32]]], input_size: Size, box: Box, size: Size
    ) -> None:
        """Logits of windows that cover ``box`` of an input of ``input_size``; ``size``: of the whole result."""
        self.seen, self.input_size, self.box, self.size = seen, input_size, box, size

    def __len__(self) -> int:
        return len(self.seen[0][1])

    def __getitem__(self, number: int) -> Plane:
        """Float32 (height, width) of the part."""
        plane = np.empty(self.box.size, np.float32)
        for each, logits in self.seen:
            view, core = each.box, each.core
            large = _enlarged(logits[number], view.size)
            plane[
                core.top - self.box.top : core.bottom - self.box.top,
                core.left - self.box.left : core.right - self.box.left,
            ] = large[core.top - view.top : core.bottom - view.top, core.left - view.left : core.right - view.left]
        return plane if self.size == self.input_size else _enlarged(plane, self.size)


def _enlarged(plane: Plane, size: Size) -> Plane:
    """Bilinear with half-pixel centers, as the torch network does, to (height, width)."""
    if plane.shape == size:
        return plane
    return cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR).astype(np.float32, copy=False)


def most_probable(passes: Sequence[ClassPlanes], *, confidence: bool) -> tuple[Pixels, Pixels | None]:
    """The most probable class and 255 * its probability: the mean of the passes' probabilities."""
    if len(passes) == 1:
        highest, classes = _largest(passes[0][number] for number in range(len(passes[0])))
        if not confidence:
            return classes, None
        total = sum(np.exp(passes[0][number] - highest) for number in range(len(passes[0])))
        return classes, _in_255(1 / total)
    norms = [_log_sum_exp(planes) for planes in passes]
    highest, classes = _largest(
        sum(np.exp(planes[number] - norm) for planes, norm in zip(passes, norms, strict=True)) / len(passes)
        for number in range(len(passes[0]))
    )
    return classes, _in_255(highest) if confidence else None


def probabilities_of(passes: Sequence[ClassPlanes]) -> Pixels:
    """255 * the probability of every class, uint8 (height, width, classes)."""
    norms = [_log_sum_exp(planes) for planes in passes]
    every = [
        _in_255(sum(np.exp(planes[number] - norm) for planes, norm in zip(passes, norms, strict=True)) / len(passes))
        for number in range(len(passes[0]))
    ]
    return np.stack(every, axis=-1)


def _largest(planes: Iterator[Plane]) -> tuple[Plane, Pixels]:
    """The largest value at every pixel and the position of its plane; the first one of equals."""
    highest = next(planes).copy()
    classes = np.zeros(highest.shape, np.uint8)
    for number, plane in enumerate(planes, start=1):
        higher = plane > highest
        np.copyto(highest, plane, where=higher)
        classes[higher] = number
    return highest, classes


def _log_sum_exp(planes: ClassPlanes) -> Plane:
    highest = planes[0].copy()
    for number in range(1, len(planes)):
        np.maximum(highest, planes[number], out=highest)
    total = sum(np.exp(planes[number] - highest) for number in range(len(planes)))
    result: Plane = highest + np.log(total)
    return result


def _in_255(probability: Plane) -> Pixels:
    result: Pixels = np.rint(255 * probability).astype(np.uint8)
    return result
