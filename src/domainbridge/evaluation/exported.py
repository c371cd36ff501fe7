"""An exported file as a predictor: the methods of :class:`Predictor` that ``predict`` and ``serve`` use, without torch.

No array holds a value per class for every pixel of the result: classes are compared one plane after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.decode import read_image
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.data.transforms import ResizeRule, ScaleRule, resize_image
from domainbridge.errors import DataError, ModelError, RecipeError
from domainbridge.evaluation.edge_padding import continued
from domainbridge.evaluation.exported_file import ExportedConfig
from domainbridge.evaluation.exported_planes import (
    ClassPlanes,
    Division,
    SeenView,
    View,
    most_probable,
    probabilities_of,
)
from domainbridge.evaluation.inference_rule import InferenceRule, given_scales, windows_of
from domainbridge.evaluation.segmentation_model import Maps, WindowedImage, at_size
from domainbridge.evaluation.sessions import Session, open_session, padded, unit_batch
from domainbridge.evaluation.windows import Box, Windows
from domainbridge.files import file_checksum

__all__ = ["ExportedPredictor", "load_exported"]

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


class ExportedPredictor:
    """An exported file with everything that its images need.

    Attributes:
        session: runs the network.
        config: classes, colors, size.
        image_rule: choice of bands and scale of the values of image files.
        rule: flip, scales; of a file of a fixed size, also windows of this size.
        checksum: of the file.
    """

    def __init__(self, session: Session, config: ExportedConfig, rule: InferenceRule | None = None) -> None:
        self.session, self.config = session, config
        self.rule = replace(rule or InferenceRule(), window=config.size)
        self.space = config.space
        self.resize: ResizeRule | ScaleRule | None = config.resize_rule
        self.checksum = ""
        self.image_rule = config.image

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the train id."""
        return self.config.classes

    @property
    def palette(self) -> Pixels:
        """RGB per train id, uint8 (256, 3); unused values are black."""
        return self.space.palette

    def read(self, path: Path) -> Pixels:
        """An image file as RGB, uint8 (height, width, 3), with the bands and the scale of the model's training images.

        Raises:
            DataError: the file cannot be read.
        """
        return read_image(path, self.image_rule)

    def images_at_once(self, height: int, width: int) -> int:
        """How many images of that size :meth:`class_maps` takes: one, a CPU gains nothing from more."""
        return 1

    def windows_for(self, height: int, width: int) -> Windows | None:
        """The windows for an image of that size, at the largest scale; None: it goes through the network at once."""
        return windows_of(*self.rule.largest_size(*self.input_size(height, width)), self.rule)

    def class_map(self, image: Pixels, *, confidence: bool = False, probabilities: bool = False) -> Maps:
        """Train ids at the image's own size, on request with probabilities, see :class:`Maps`; bounded memory.

        Args:
            image: RGB, uint8 (height, width, 3).
            confidence: whether the largest probability is asked for.
            probabilities: whether those of all classes are.

        Raises:
            DataError: the image is smaller than the network takes.
            ModelError: the network gives values that are not numbers.
        """
        height, width = image.shape[:2]
        whole = Maps(
            np.empty((height, width), np.uint8),
            np.empty((height, width), np.uint8) if confidence else None,
            np.empty((height, width, len(self.classes)), np.uint8) if probabilities else None,
        )
        resized = resize_image(image, self.input_size(height, width))
        for box, part in self.parts(resized, (height, width), confidence=confidence, probabilities=probabilities):
            place = slice(box.top, box.bottom), slice(box.left, box.right)
            for array, values in zip(whole.arrays, part.arrays, strict=True):
                array[place] = values
        return whole

    def maps(self, images: Sequence[Pixels], *, confidence: bool = False, probabilities: bool = False) -> list[Maps]:
        """The same for several images."""
        return [self.class_map(image, confidence=confidence, probabilities=probabilities) for image in images]

    def parts(
        self, image: WindowedImage, size: Size, *, confidence: bool = False, probabilities: bool = False
    ) -> Iterator[tuple[Box, Maps]]:
        """The result of an image of any size, in parts; see :class:`SegmentationModel`.

        Raises:
            DataError: the image is smaller than the network takes.
            ModelError: the network gives values that are not numbers.
        """
        for box, planes in self._parts(image, size):
            classes, sure = most_probable(planes, confidence=confidence)
            yield box, Maps(classes, sure, probabilities_of(planes) if probabilities else None)

    @property
    def training_sizes(self) -> TrainingSizes | None:
        """Of the images of training; None where nothing is known."""
        return self.config.training_sizes

    @property
    def identity(self) -> str:
        """A text that changes with everything that may change a result."""
        return f"{self.checksum} {self.config} {self.resize} {self.rule} {self.image_rule}"

    def input_size(self, height: int, width: int) -> Size:
        """(height, width) at the network of an image of that size."""
        return (height, width) if self.resize is None else self.resize.size_for(height, width)

    def class_maps(self, images: Sequence[Pixels], *, confidence: bool = False) -> list[Maps]:
        """As :meth:`maps`, without the probabilities of all classes."""
        return self.maps(images, confidence=confidence)

    def batch(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """Images of one size as the network takes them: float32 (batch, 3, height, width) in [0, 1].

        Args:
            images: RGB, uint8 (height, width, 3), at the network's size; of a fixed size, or smaller.
        """
        batch = unit_batch(images)
        return batch if self.config.size is None else padded(batch, self.config.size, self.config.padding)

    def logits(self, images: Sequence[Pixels]) -> NDArray[np.float32]:
        """The network's output of images of one size: float32 (batch, classes, h, w); arguments as for ``batch``."""
        return self.session.logits(self.batch(images))

    def _parts(self, image: WindowedImage, size: Size) -> Iterator[tuple[Box, list[ClassPlanes]]]:
        """Boxes of the result, each with the planes of every pass: of the scales, mirrored or not."""
        sizes = self.rule.sizes(image.shape[0], image.shape[1])
        if min(map(min, sizes)) < self.config.smallest_side:
            smallest = "" if self.rule.scales == (1.0,) else f" at the scale {min(self.rule.scales):g}"
            raise DataError(
                f"an image of {size[1]}x{size[0]} pixels{smallest}: the exported network takes "
                f"{self.config.smallest_side} pixels a side or more; predict with the model folder, which pads smaller "
                "ones"
            )
        if sizes == [size]:
            division = Division(*size, self.rule)
            for number, part in enumerate(division.parts):
                yield part, self._planes(image, partial(division.views, number), part, size)
            return
        passes = []  # logits go to the input size first, so that all of them are needed
        for each in sizes:
            division = Division(*each, self.rule)
            passes += self._planes(at_size(image, each), division.every_view, division.whole, size)
        yield Box(0, size[0], 0, size[1]), passes

    def _planes(
        self, image: WindowedImage, views: Callable[..., Sequence[View]], box: Box, size: Size
    ) -> list[ClassPlanes]:
        """The passes of one scale over the windows that cover ``box`` of an image; ``size``: of the whole result."""
        shape = image.shape[0], image.shape[1]
        return [ClassPlanes(self._seen(image, views(mirror=m), m), shape, box, size) for m in self.rule.mirrors]

    def _seen(self, image: WindowedImage, views: Sequence[View], mirror: bool) -> list[SeenView]:
        """The windows put through the network; ``mirror``: the mirrored ones, mirrored back."""
        seen = []
        for each in views:
            view = each.box
            crop = image[view.top : view.bottom, view.left : view.right]
            batch = self.batch([continued(crop, self.config.grid)])
            logits = self.session.logits(np.ascontiguousarray(batch[..., ::-1]) if mirror else batch)[0]
            if not np.isfinite(logits).all():
                raise ModelError(
                    "the network gives values that are not finite numbers, so its classes mean nothing: its weights "
                    "are damaged, or float16 is too small for them (export with --precision float32)"
                )
            height, width = batch.shape[2:]
            seen.append(SeenView(each, np.ascontiguousarray(logits[:, :, ::-1]) if mirror else logits, (height, width)))
        return seen


def load_exported(
    path: Path | str,
    *,
    slide: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> ExportedPredictor:
    """Load a file that ``domainbridge export`` wrote: .onnx with onnxruntime, without torch; .pt2 with torch.

    Args:
        path: of the file.
        slide: must be False; exported files see the whole image, or windows with context above four megapixels. A
            file of a fixed size has windows of this size.
        flip: average with the mirrored image.
        scales: factors of the image's size at the network, whose results are averaged.
        device: auto, cpu, cuda, cuda:1 ...
        precision: must be float32; an exported file has the precision that it was exported with.
        threads: of one forward pass on the CPU.

    Raises:
        ModelError: not an exported file, a damaged one, or its runtime is not installed.
        RecipeError: no such device, or an option that exported files do not have.
    """
    if slide:
        raise RecipeError("--slide: exported files have no sliding windows; predict with the model folder")
    if precision != "float32":
        raise RecipeError(f"--precision {precision}: the precision of an exported file is chosen by `export`")
    rule = InferenceRule(flip=flip, scales=given_scales(scales))
    session, config = open_session(Path(path), device, threads)
    predictor = ExportedPredictor(session, config, rule)
    predictor.checksum = file_checksum(Path(path))
    return predictor
