"""Training batches as a function of the step: ``stream[step]`` is the same today, tomorrow and in any worker."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from domainbridge.data.mixture import Mixture
from domainbridge.data.samples import Samples
from domainbridge.data.statistics import RareClasses
from domainbridge.data.transforms import choose_crop, distort, draw_distortion, draw_offset, pad_to
from domainbridge.errors import DataError, TrainingError
from domainbridge.seeding import numpy_generator
from domainbridge.types import IGNORE, Batch, Rows

__all__ = ["CropRule", "PairedCrops", "TargetCrops", "batches"]


T = TypeVar("T")


@dataclass(frozen=True)
class CropRule:
    """How a resized image becomes a training crop.

    Attributes:
        size: (height, width) in pixels.
        max_class_share: a labelled crop in which one class reaches it is redrawn.
        tries: how often.
        flip: probability of mirroring.
        padding: RGB put below and right of a too small image: the colour that normalises to about 0.
    """

    size: tuple[int, int]
    max_class_share: float = 0.75
    tries: int = 10
    flip: float = 0.5
    padding: tuple[int, int, int] = (124, 116, 104)


class PairedCrops(Dataset[Batch]):
    """Item ``step`` is the batch of that step: each source image of the epoch with a random target image."""

    def __init__(
        self,
        source: Samples,
        target: Samples,
        rule: CropRule,
        *,
        batch_size: int,
        seed: int,
        stage: str,
        distort_source: bool = False,
        rare: RareClasses | None = None,
        source_mixture: Mixture | None = None,
        target_mixture: Mixture | None = None,
        rows: Rows | None = None,
    ) -> None:
        """Args are kept as they are.

        ``distort_source`` adds photometric distortion (step 2 of the method); ``rare`` replaces the shuffled epochs
        of the source by rare class sampling; the mixtures say how often each of several domains is drawn; ``rows`` are
        those of each batch that this process loads.
        """
        self.source, self.target, self.rule = source, target, rule
        self.batch_size, self.seed, self.stage = batch_size, seed, stage
        self.distort_source = distort_source
        self.rare = rare
        self.source_mixture = source_mixture or Mixture((len(source),))
        self.target_mixture = target_mixture or Mixture((len(target),))
        self.rows = rows or Rows.whole(batch_size)

    def __getitem__(self, step: int) -> Batch:
        """The batch of ``step`` as uint8 tensors."""
        first, count = self.rows.first, self.rows.count
        pairs = [self._pair(step, row) for row in range(first, first + count)]
        image, label, target = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return Batch(image, label, target, self.rows)

    def _pair(self, step: int, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        generator = numpy_generator(self.seed, self.stage, step, row, "crop")
        wanted = None
        if self.rare is None:
            index = self.source_mixture.index(self.seed, self.stage, step * self.batch_size + row)
        else:
            train_id, index = self.rare.draw(generator)
            wanted = (train_id, self.rare.min_share / 2)
        source = self.source.load(index)
        assert source.label is not None
        image = source.image
        height, width = self.rule.size

        def draw() -> tuple[int, int]:
            return draw_offset((image.shape[0], image.shape[1]), self.rule.size, generator)

        y, x = choose_crop(source.label, self.rule.size, self.rule.max_class_share, self.rule.tries, draw, wanted)
        image, label = image[y : y + height, x : x + width], source.label[y : y + height, x : x + width]
        if generator.random() < self.rule.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        if self.distort_source:
            image = distort(np.ascontiguousarray(image), draw_distortion(generator))
        label = pad_to(label, self.rule.size, IGNORE)
        target = self.target.load(self.target_mixture.draw(generator)).image
        return _channels_first(image, self.rule), label, _random_crop(target, self.rule, generator)


class TargetCrops(Dataset[torch.Tensor]):
    """Random crops of every target image, ``passes`` times over, in batches: uint8 (batch, 3, height, width)."""

    def __init__(
        self,
        target: Samples,
        rule: CropRule,
        *,
        batch_size: int,
        passes: int,
        seed: int,
        stage: str,
        mixture: Mixture | None = None,
    ) -> None:
        """Args are kept as they are; with a ``mixture`` several domains are drawn as it says, not every image once."""
        self.target, self.rule = target, rule
        self.batch_size, self.passes = batch_size, passes
        self.seed, self.stage = seed, stage
        self.order = mixture or Mixture((len(target),))

    def __len__(self) -> int:
        return -(-len(self.target) * self.passes // self.batch_size)

    def __getitem__(self, step: int) -> torch.Tensor:
        """Batch ``step``; the last one may be smaller."""
        end = min((step + 1) * self.batch_size, len(self.target) * self.passes)
        crops = []
        for position in range(step * self.batch_size, end):
            image = self.target.load(self.order.index(self.seed, self.stage, position)).image
            generator = numpy_generator(self.seed, self.stage, position, "crop")
            crops.append(_random_crop(image, self.rule, generator))
        return torch.from_numpy(np.stack(crops))


def _random_crop(image: NDArray[np.uint8], rule: CropRule, generator: np.random.Generator) -> NDArray[np.uint8]:
    y, x = draw_offset((image.shape[0], image.shape[1]), rule.size, generator)
    image = image[y : y + rule.size[0], x : x + rule.size[1]]
    if generator.random() < rule.flip:
        image = image[:, ::-1]
    return _channels_first(image, rule)


def _channels_first(image: NDArray[np.uint8], rule: CropRule) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pad_to(image, rule.size, rule.padding).transpose(2, 0, 1))


def batches(stream: Dataset[T], steps: range, *, workers: int, pin_memory: bool = False) -> Iterator[T]:
    """Items ``steps`` of a stream in order, prefetched by ``workers`` processes (0: loaded when asked for).

    Raises:
        DataError: a file cannot be used.
        TrainingError: a loader process was ended from outside.
    """
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
    )
    try:
        yield from loader
    except DataError as error:
        # A worker's error arrives wrapped in its traceback; the user's part is its last line.
        raise DataError(str(error).rpartition("DataError: ")[2].strip()) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a loader process was ended from outside, most often for want of memory ({str(error).splitlines()[0]}); "
            "lower runtime.workers, or make reduced copies (cache.folder), then start the same command again"
        ) from error


def _quiet_worker(_: int) -> None:
    import signal

    import cv2

    # Terminals, torchrun and systemd signal the whole group: the training process finishes its step, saves and ends its
    # workers; a worker that went first would take the checkpoint with it. SIGKILL still ends a worker that hangs.
    for request in (signal.SIGINT, signal.SIGTERM):
        signal.signal(request, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
