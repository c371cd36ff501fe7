"""What segments images: a model folder under torch, or an exported file under its runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.bands import ImageRule
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.data.transforms import ResizeRule, ScaleRule
from domainbridge.evaluation.windows import Windows

__all__ = ["HostClassMap", "ImagePredictor"]

Pixels = NDArray[np.uint8]


class HostClassMap(Protocol):
    """The result for an image, which can be read on the host."""

    def arrays(self) -> tuple[Pixels, Pixels | None]:
        """Train ids, and 255 * their probability where asked for; uint8 (height, width).

        Raises:
            ModelError: the network gives values that are not numbers.
        """
        ...


class ImagePredictor(Protocol):
    """What :class:`Predictor` and :class:`ExportedPredictor` have in common; the methods are described there.

    Attributes:
        space: label space of the classes.
        resize: applied to images first, or None.
        image_rule: choice of bands and scale of the values of image files.
    """

    space: LabelSpace
    resize: ResizeRule | ScaleRule | None
    image_rule: ImageRule

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        ...

    @property
    def palette(self) -> Pixels:
        """RGB per train id."""
        ...

    @property
    def training_sizes(self) -> TrainingSizes | None:
        """Of the images of training."""
        ...

    def read(self, path: Path) -> Pixels:
        """An image file as RGB."""
        ...

    def images_at_once(self, height: int, width: int) -> int:
        """How many images of that size make a batch."""
        ...

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at the network of an image of that size."""
        ...

    def windows_for(self, height: int, width: int) -> Windows | None:
        """The windows for an image of that size."""
        ...

    def class_maps(self, images: Sequence[Pixels], *, confidence: bool = False) -> Sequence[HostClassMap]:
        """The results of images of one size."""
        ...
