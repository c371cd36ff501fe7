"""A model folder as a module that predicts images of any size."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from domainbridge.data.decode import read_image
from domainbridge.data.label_spaces import LabelSpace
from domainbridge.data.training_sizes import TrainingSizes
from domainbridge.data.transforms import ResizeRule, ScaleRule, resize_image
from domainbridge.errors import RecipeError, TrainingError
from domainbridge.evaluation.inference import (
    ClassMap,
    class_map_parts,
    class_maps,
    images_at_once,
    probabilities,
)
from domainbridge.evaluation.inference_rule import InferenceRule, given_scales, windows_of
from domainbridge.evaluation.segmentation_model import Maps, WindowedImage
from domainbridge.evaluation.windows import Box, Windows
from domainbridge.models.model_folder import ModelConfig, load_model
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.runtime.device import resolve_runtime
from domainbridge.runtime.freed_memory import FreedMemory
from domainbridge.runtime.memory import enough_memory

__all__ = ["Predictor", "load_predictor"]

_WINDOW = (512, 512)
_PRECISIONS = ("float32", "bfloat16", "float16")
_LARGE_IMAGE = 2**20
"""Pixels at the network of an image for which no memory is kept before a second one of its size."""

ImageLike = NDArray[np.uint8] | Image.Image | Path | str


class Predictor(nn.Module):
    """A network with everything that its images need, in evaluation mode.

    Attributes:
        network: the segmenter.
        config: architecture, classes, colors and size.
        space: label space of its classes.
        resize: applied to images first, or None. Another rule may take the place of the model's.
        rule: whole or sliding, flip, scales.
        image_rule: choice of bands and scale of the values of image files; that of the model's training images.
        folder: path to its model folder, or None.
    """

    def __init__(self, network: Segmenter, config: ModelConfig, rule: InferenceRule | None = None) -> None:
        super().__init__()
        self.network = network.eval()
        self.config = config
        self.space = LabelSpace(config.label_space, config.classes, config.colors)
        self.resize: ResizeRule | ScaleRule | None = ResizeRule(*config.resize) if config.resize else None
        self.rule = rule or InferenceRule(pad=config.pad)
        self.image_rule = config.image
        self.folder: Path | None = None
        self._freed: FreedMemory | None = None

    def keep_memory(self) -> None:
        """On a CPU: keep the memory of an image for the next one, in the whole process; for programs that only predict.

        Half the time for a light network; :class:`FreedMemory` says why.
        """
        if self.device.type == "cpu":
            self._freed = self._freed or FreedMemory()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the position is the train id."""
        return self.config.classes

    @property
    def palette(self) -> NDArray[np.uint8]:
        """RGB per train id, uint8 (256, 3); unused values are black."""
        return self.space.palette

    @property
    def grid(self) -> int:
        """Images are continued for the network until their sides are multiples of it; 1: never."""
        return self.network.grid if self.rule.pad else 1

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def forward(self, image: Tensor) -> Segmentation:
        """Float32 (batch, 3, height, width) in [0, 1] to logits and features at the head's resolution."""
        output: Segmentation = self.network(image)
        return output

    def predict(self, image: ImageLike) -> NDArray[np.uint8]:
        """Train ids at the image's own size: uint8 (height, width).

        Args:
            image: RGB, uint8 (height, width, 3), a Pillow image, or the path of an image file.

        Memory is bounded: an image of more than four megapixels at the network goes through windows with context.

        Raises:
            DataError: the file cannot be read.
            ModelError: the network gives values that are not numbers.
        """
        return self.class_map(self._as_array(image)).checked().classes.cpu().numpy()

    def class_map(self, image: NDArray[np.uint8], *, confidence: bool = False, probabilities: bool = False) -> ClassMap:
        """Train ids at the image's own size, on request with probabilities, see :class:`ClassMap`; bounded memory.

        Args:
            image: RGB, uint8 (height, width, 3).
            confidence: whether the largest probability is asked for.
            probabilities: whether those of all classes are.
        """
        return self.class_maps([image], confidence=confidence, probabilities=probabilities)[0]

    def class_maps(
        self, images: Sequence[NDArray[np.uint8]], *, confidence: bool = False, probabilities: bool = False
    ) -> list[ClassMap]:
        """The same for several images of one size, which pass the network together."""
        size = (images[0].shape[0], images[0].shape[1])
        sizes = [size] * len(images)
        resized = list(map(self._resized, images))
        return class_maps(
            *(self.network, resized, sizes, self.rule, self.device),
            confidence=confidence,
            probabilities=probabilities,
        )

    def maps(
        self, images: Sequence[NDArray[np.uint8]], *, confidence: bool = False, probabilities: bool = False
    ) -> list[Maps]:
        """The same as arrays; the wait for the device.

        Raises:
            MemoryError: the images do not fit into the device's memory.
            ModelError: the network gives values that are not numbers.
        """
        if self._freed is not None:
            height, width = images[0].shape[:2]
            self._freed.before(images[0].shape, large=math.prod(self.input_size(height, width)) > _LARGE_IMAGE)
        with _memory_error():
            results = self.class_maps(images, confidence=confidence, probabilities=probabilities)
            return [_on_host(result) for result in results]

    def parts(
        self, image: WindowedImage, size: tuple[int, int], *, confidence: bool = False, probabilities: bool = False
    ) -> Iterator[tuple[Box, Maps]]:
        """The result of an image of any size, in parts; see :class:`SegmentationModel`."""
        if self._freed is not None:
            self._freed.pause()
        with _memory_error():
            for box, result in class_map_parts(
                *(self.network, image, size, self.rule, self.device),
                confidence=confidence,
                probabilities=probabilities,
            ):
                yield box, _on_host(result)

    @cached_property
    def _weights(self) -> str:
        """A digest of the weights: 0.2 s for 180 MB."""
        total = hashlib.blake2b(digest_size=16)
        for name, value in self.network.state_dict().items():
            total.update(name.encode())
            total.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()

    @property
    def training_sizes(self) -> TrainingSizes | None:
        """Of the images of training; None where nothing is known."""
        return self.config.training_sizes

    @property
    def identity(self) -> str:
        """A text that changes with everything that may change a result."""
        return f"{self._weights} {self.config} {self.resize} {self.rule} {self.image_rule} {self.device.type}"

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) at the network of an image of that size."""
        return (height, width) if self.resize is None else self.resize.size_for(height, width)

    def images_at_once(self, height: int, width: int) -> int:
        """How many images of that size :meth:`class_maps` takes in bounded memory."""
        return images_at_once(*self.input_size(height, width), self.rule, self.device)

    def windows_for(self, height: int, width: int) -> Windows | None:
        """The windows for an image of that size, at the largest scale; None: it goes through the network at once."""
        return windows_of(*self.rule.largest_size(*self.input_size(height, width)), self.rule)

    def predict_probabilities(self, image: ImageLike) -> Tensor:
        """Class probabilities at the image's own size: float32 (classes, height, width), on the network's device.

        Of a large image these are gigabytes; :meth:`predict` and :meth:`class_map` need no such tensor.

        Args:
            image: as for :meth:`predict`.

        Raises:
            DataError: the file cannot be read.
        """
        array = self._as_array(image)
        size = (array.shape[0], array.shape[1])
        return probabilities(self.network, self._resized(array), size, self.rule, self.device)[0]

    def read(self, path: Path) -> NDArray[np.uint8]:
        """An image file as RGB, uint8 (height, width, 3), with the bands and the scale of the model's training images.

        Raises:
            DataError: the file cannot be read.
        """
        return read_image(path, self.image_rule)

    def _resized(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return resize_image(image, self.input_size(image.shape[0], image.shape[1]))

    def _as_array(self, image: ImageLike) -> NDArray[np.uint8]:
        if isinstance(image, Path | str):
            return self.read(Path(image))
        if isinstance(image, Image.Image):
            return np.asarray(image.convert("RGB"))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected RGB, uint8 (height, width, 3); found {image.dtype} {image.shape}")
        return image


@contextmanager
def _memory_error() -> Iterator[None]:
    """A lack of memory, whichever error torch has for one, as MemoryError."""
    try:
        with enough_memory("this image"):
            yield
    except TrainingError as error:
        raise MemoryError(str(error)) from error


def _on_host(result: ClassMap) -> Maps:
    result.checked()
    every = (None if each is None else each.cpu().numpy() for each in (result.confidence, result.probabilities))
    return Maps(result.classes.cpu().numpy(), *every)


def load_predictor(
    folder: Path,
    *,
    slide: bool = False,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: str = "auto",
    precision: str = "float32",
) -> Predictor:
    """Load a model folder.

    Args:
        folder: with model.safetensors and config.json.
        slide: sliding windows of 512x512 instead of the whole image.
        flip: average with the mirrored image.
        scales: factors of the image's size at the network, whose results are averaged.
        device: auto, cpu, cuda, cuda:1 ...
        precision: float32, or bfloat16 and float16 under autocast.

    Raises:
        ModelError: no model folder, or a damaged one.
        RecipeError: no such device or precision, or scales that cannot be used.
    """
    scales = given_scales(scales)
    if precision not in _PRECISIONS:
        raise RecipeError(f"precision: {precision!r} is none of {', '.join(_PRECISIONS)}")
    runtime = resolve_runtime(device)
    network, config = load_model(folder)
    runtime.place(network, channels_last=True)
    rule = InferenceRule(_WINDOW if slide else None, flip, precision, scales, config.pad)
    predictor = Predictor(network, config, rule)
    predictor.folder = folder
    return predictor
