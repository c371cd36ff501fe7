"""The files of a segmented image: class map, overlay, confidence; each recorded, written in threads."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.threads import MOST_THREADS, usable_cores
from domainbridge.errors import DataError
from domainbridge.files import write_file
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.predict_inputs import output_path

__all__ = ["Outputs", "Segmented", "WriterThreads", "blend"]

_JPEG_QUALITY = 92
_JPEG_SIDE = 65500
"""Longest side of a JPEG file that the library writes."""
_ROWS = 2**22
"""Pixels that are blended at a time."""
_WAITING_BYTES = 512 * 2**20
"""Bytes of results that may wait for a thread; at least one does."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Segmented:
    """An image with its result.

    Attributes:
        path: of the image.
        target: path of the class map, without its ending.
        image: RGB, uint8 (height, width, 3).
        classes: train ids, uint8 (height, width).
        confidence: 255 * the largest probability, uint8 (height, width), where asked for.
    """

    path: Path
    target: Path
    image: Pixels
    classes: Pixels
    confidence: Pixels | None


@dataclass(frozen=True)
class Outputs:
    """What is written for each image.

    Attributes:
        palette: RGB per train id, uint8 (256, 3).
        record: of the files that ``predict`` wrote.
        endings: of the files of an image.
    """

    palette: Pixels
    record: OwnOutputs
    endings: Sequence[str]
    _recording: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, path: Path, image: Pixels) -> None:
        """Check an image before the network sees it.

        Raises:
            DataError: a result of that size cannot be written.
        """
        if "_overlay.jpg" in self.endings and max(image.shape) > _JPEG_SIDE:
            raise DataError(f"{path}: an overlay is a JPEG of at most {_JPEG_SIDE} pixels a side; leave out --overlay")

    def write(self, result: Segmented) -> None:
        """Write the files of an image; called in threads."""
        result.target.parent.mkdir(parents=True, exist_ok=True)
        for ending in self.endings:
            if ending == "_overlay.jpg":
                picture = Image.fromarray(_blended(result.image, self.palette, result.classes))
            elif ending == "_confidence.png":
                assert result.confidence is not None
                picture = Image.fromarray(result.confidence)
            else:
                picture = Image.fromarray(result.classes)
                picture.putpalette(self.palette.flatten().tolist())
            self._save(picture, output_path(result.target, ending), result.path)

    def _save(self, picture: Image.Image, output: Path, image: Path) -> None:
        def save(temporary: Path) -> None:
            kind = "JPEG" if output.suffix == ".jpg" else "PNG"
            picture.save(temporary, format=kind, quality=_JPEG_QUALITY)
            with self._recording:
                self.record.add(output, temporary, image)

        write_file(output, save)


class WriterThreads:
    """Threads that write results, for a ``with`` block; leaving the block waits for them.

    A failure of ``write`` goes to ``failed``, which may raise it again and so end the block.
    """

    def __init__(self, write: Callable[[Segmented], None], failed: Callable[[Segmented, Exception], None]) -> None:
        self.write, self.failed = write, failed
        self.pool = ThreadPoolExecutor(min(usable_cores(), MOST_THREADS))
        self.waiting: deque[tuple[Segmented, Future[None]]] = deque()

    def __enter__(self) -> "WriterThreads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self.waiting and error is None:
                self._take_one()
        finally:
            self.pool.shutdown(cancel_futures=True)

    def add(self, result: Segmented) -> None:
        """Write a result as soon as a thread is free; waits while many results wait."""
        self.waiting.append((result, self.pool.submit(self.write, result)))
        while len(self.waiting) > 1 and sum(4 * each.classes.size for each, _ in self.waiting) > _WAITING_BYTES:
            self._take_one()
        while self.waiting and self.waiting[0][1].done():
            self._take_one()

    def _take_one(self) -> None:
        result, future = self.waiting.popleft()
        error = future.exception()
        if isinstance(error, Exception):
            self.failed(result, error)
        elif error is not None:
            raise error


def blend(image: Pixels, colors: Pixels) -> Pixels:
    """Half image, half colors; both RGB uint8 (height, width, 3)."""
    return ((image.astype(np.uint16) + colors) // 2).astype(np.uint8)


def _blended(image: Pixels, palette: Pixels, labels: Pixels) -> Pixels:
    """The classes' colors over the image, some rows at a time."""
    result = np.empty_like(image)
    rows = max(_ROWS // image.shape[1], 1)
    for top in range(0, len(image), rows):
        some = slice(top, top + rows)
        result[some] = blend(image[some], palette[labels[some]])
    return result
