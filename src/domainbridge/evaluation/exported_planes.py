"""Logits of an exported network's windows as planes of one class each and the class of a pixel; without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.evaluation.inference_rule import InferenceRule, windows_of
from domainbridge.evaluation.windows import Box

__all__ = ["ClassPlanes", "Division", "SeenView", "View", "most_probable", "probabilities_of"]

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True)
class View:
    """A window: what the network sees of an image, and the part of it that the window gives."""

    box: Box
    core: Box


class Division:
    """An image in one piece, in windows with context, or in windows of a fixed size whose mean counts.

    Attributes:
        parts: boxes that cover the image once, row by row.
        whole: the whole image.
    """

    def __init__(self, height: int, width: int, rule: InferenceRule) -> None:
        self.whole = Box(0, height, 0, width)
        self.windows = windows_of(height, width, rule)
        self.parts: tuple[Box, ...] = (self.whole,)
        if self.windows is not None:
            self.parts = self.windows.cores if self.windows.context else self.windows.parts

    def views(self, number: int, *, mirror: bool) -> list[View]:
        """The windows of a part; ``mirror``: of the mirrored image's, where these are others."""
        part = self.parts[number]
        if self.windows is None:
            return [View(part, part)]
        if self.windows.context:
            return [View(self.windows.views[number], part)]
        return [View(view, view.common(part)) for view in self.windows.mean_views(part, mirror=mirror)]

    def every_view(self, *, mirror: bool) -> list[View]:
        """The windows of the whole image."""
        if self.windows is None or self.windows.context:
            return [view for number in range(len(self.parts)) for view in self.views(number, mirror=mirror)]
        return [View(view, view) for view in self.windows.mean_views(self.whole, mirror=mirror)]


@dataclass(frozen=True)
class SeenView:
    """A window that passed the network.

    Attributes:
        view: see there.
        logits: float32 (classes, h, w).
        size: (height, width) of what the network saw: the window, with padding at the bottom and at the right.
    """

    view: View
    logits: NDArray[np.float32]
    size: Size


class ClassPlanes:
    """Logits of a part of the result, a class at a time."""

    def __init__(self, seen: Sequence[SeenView], input_size: Size, box: Box, size: Size) -> None:
        """Logits of windows that cover ``box`` of an input of ``input_size``, each with what the network saw of it.

        ``size``: of the whole result.
        """
        self.seen, self.input_size, self.box, self.size = seen, input_size, box, size
        visits = np.zeros(box.size, np.float32)
        for window in seen:
            visits[self._place(window.view)] += 1
        self.visits = visits if visits.max() > 1 else None

    def __len__(self) -> int:
        return len(self.seen[0].logits)

    def __getitem__(self, number: int) -> Plane:
        """Float32 (height, width) of the part: the mean of the windows."""
        plane = np.zeros(self.box.size, np.float32)
        for each in self.seen:
            view, core = each.view.box, each.view.core
            large = _enlarged(each.logits[number], each.size)
            plane[self._place(each.view)] += large[
                core.top - view.top : core.bottom - view.top, core.left - view.left : core.right - view.left
            ]
        if self.visits is not None:
            plane /= self.visits
        return plane if self.size == self.input_size else _enlarged(plane, self.size)

    def _place(self, view: View) -> tuple[slice, slice]:
        core, box = view.core, self.box
        return slice(core.top - box.top, core.bottom - box.top), slice(core.left - box.left, core.right - box.left)


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
