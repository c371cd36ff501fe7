"""What ``predict`` and ``serve`` need of a model: images to classes and probabilities. No torch here.

``Predictor`` is such a model; one that runs an exported file is another. A new kind has to offer the methods of
:class:`SegmentationModel` and nothing else: files, names, writing, videos and large images are the work of ``tools``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.bands import ImageRule
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.data.transforms import resize_image
from domainbridge.evaluation.windows import Box, Windows

__all__ = ["Maps", "SegmentationModel", "WindowedFile", "WindowedImage", "at_size"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Maps:
    """The result for an image or a part of one, as arrays.

    Attributes:
        classes: train ids, uint8 (height, width).
        confidence: 255 * the largest probability, rounded, uint8 (height, width); None where it was not asked for.
        probabilities: 255 * the probability of every class, rounded, uint8 (height, width, classes); likewise.
    """

    classes: Pixels
    confidence: Pixels | None = None
    probabilities: Pixels | None = None

    @property
    def arrays(self) -> list[Pixels]:
        """Those that are there."""
        return [each for each in (self.classes, self.confidence, self.probabilities) if each is not None]


class WindowedFile(Protocol):
    """An image of any size that is read window by window."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        ...

    def __getitem__(self, window: tuple[slice, slice], /) -> Pixels:
        """RGB, uint8 (rows, columns, 3)."""
        ...

    def resized(self, size: tuple[int, int], /) -> "WindowedFile":
        """The same image at another size, (height, width)."""
        ...


WindowedImage = Pixels | WindowedFile
"""RGB, uint8 (height, width, 3): an array, or a file of any size."""


def at_size(image: WindowedImage, size: tuple[int, int]) -> WindowedImage:
    """An image at (height, width); itself if that is its size."""
    if image.shape[:2] == size:
        return image
    return resize_image(image, size) if isinstance(image, np.ndarray) else image.resized(size)


class SegmentationModel(Protocol):
    """A model as ``predict`` and ``serve`` use one. All sizes are the image's, whatever the network's input size is."""

    space: LabelSpace
    """Of the classes."""
    image_rule: ImageRule
    """Choice of bands and scale of the values of image files."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the train id."""
        ...

    @property
    def palette(self) -> Pixels:
        """RGB per train id, uint8 (256, 3); unused values are black."""
        ...

    @property
    def training_sizes(self) -> TrainingSizes | None:
        """Of the images of training; None where nothing is known."""
        ...

    @property
    def identity(self) -> str:
        """A text that changes with everything that may change a result: weights, size at the network, device type."""
        ...

    def read(self, path: Path) -> Pixels:
        """An image file as RGB, uint8 (height, width, 3).

        Raises:
            DataError: the file cannot be read.
        """
        ...

    def images_at_once(self, height: int, width: int) -> int:
        """How many images of that size :meth:`maps` takes in bounded memory."""
        ...

    def windows_for(self, height: int, width: int) -> Windows | None:
        """The windows for an image of that size, at the largest scale; None: it goes through the network at once."""
        ...

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at the network of an image of that size."""
        ...

    def maps(self, images: Sequence[Pixels], *, confidence: bool = False, probabilities: bool = False) -> list[Maps]:
        """The results for several images of one size, RGB uint8 (height, width, 3), which pass the network together.

        Raises:
            MemoryError: they do not fit into the device's memory.
            ModelError: the network gives values that are not numbers.
        """
        ...

    def parts(
        self, image: WindowedImage, size: tuple[int, int], *, confidence: bool = False, probabilities: bool = False
    ) -> Iterator[tuple[Box, Maps]]:
        """The result of an image of any size in parts of at most a few million pixels, in bounded memory.

        Args:
            image: at the network's size, see :meth:`input_size`.
            size: (height, width) of the result.
            confidence: see :class:`Maps`.
            probabilities: see :class:`Maps`.

        Yields:
            Parts that cover the result once, row by row from the top, each row from the left.

        Raises:
            MemoryError: a part does not fit into the device's memory.
            ModelError: the network gives values that are not numbers.
        """
        ...
