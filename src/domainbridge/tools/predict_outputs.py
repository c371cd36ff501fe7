"""The files of a segmented image, each recorded, written in threads."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.threads import MOST_THREADS, usable_cores
from domainbridge.errors import DataError
from domainbridge.evaluation.segmentation_model import Maps, SegmentationModel
from domainbridge.files import digest, write_file
from domainbridge.tools.own_outputs import Done, OwnOutputs
from domainbridge.tools.pictures import blended, legend_strip
from domainbridge.tools.polygon_files import Facts, coco_annotation, geojson, labelme
from domainbridge.tools.polygons import Region, filled_outlines, traced_regions
from domainbridge.tools.predict_inputs import Input, output_path
from domainbridge.tools.predict_options import PredictOptions, endings_of

__all__ = [
    "COCO_PARTS",
    "JPEG_QUALITY",
    "JPEG_SIDE",
    "Outputs",
    "Segmented",
    "WriterThreads",
    "coco_part",
    "disagreements",
]

JPEG_QUALITY = 92
JPEG_SIDE = 65500
"""Longest side of a JPEG file that the library writes."""
COCO_PARTS = ".domainbridge-coco"
"""Folder in the folder of results: annotations per image, from which the one COCO file is put together."""
_WAITING_BYTES = 256 * 2**20
"""Bytes of results that may wait for a thread; at least one does."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Segmented:
    """An image with its result.

    Attributes:
        item: the input.
        image: RGB, uint8 (height, width, 3).
        classes: train ids, uint8 (height, width).
        confidence: 255 * the largest probability, uint8 (height, width), where asked for.
        probabilities: 255 * the probability of every class, uint8 (height, width, classes), where asked for.
        disagreement: 255 where the two paths predict different classes, else 0, uint8 (height, width), where asked for.
    """

    item: Input
    image: Pixels
    classes: Pixels
    confidence: Pixels | None = None
    probabilities: Pixels | None = None
    disagreement: Pixels | None = None

    @property
    def bytes_held(self) -> int:
        """Bytes of all arrays."""
        every = (self.image, self.classes, self.confidence, self.probabilities, self.disagreement)
        return sum(each.nbytes for each in every if each is not None)


@dataclass(frozen=True)
class Outputs:
    """What is written for each image.

    Attributes:
        model: whose classes are written.
        record: of the files that ``predict`` wrote.
        options: what is asked for.
        settings: digest of whatever may change a result.
    """

    model: SegmentationModel
    record: OwnOutputs
    options: PredictOptions
    settings: str = ""
    _recording: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, path: Path, size: tuple[int, int]) -> None:
        """Check an image before the network sees it.

        Raises:
            DataError: a result of that size cannot be written.
        """
        if self.options.overlay and max(size) > JPEG_SIDE:
            raise DataError(f"{path}: an overlay is a JPEG of at most {JPEG_SIDE} pixels a side; leave out --overlay")

    @property
    def palette(self) -> Pixels:
        """RGB per written value, uint8 (256, 3)."""
        palette = np.zeros((256, 3), np.uint8)
        values = self.options.values[: len(self.model.classes)]
        palette[values] = self.model.palette[: len(values)]
        return palette

    def write(self, result: Segmented) -> None:
        """Write the files of an image and record that they are all there; called in threads."""
        result.item.target.parent.mkdir(parents=True, exist_ok=True)
        outputs = [output_path(result.item.target, ending) for ending in endings_of(result.item.kind, self.options)]
        for output, ending in zip(outputs, endings_of(result.item.kind, self.options), strict=True):
            self.save(output, partial(self.save_as, result, ending), result.item.path)
        if "coco" in self.options.polygons:
            regions = traced_regions(result.classes, self.options.min_area, self.options.tolerance)
            self.save_coco(result.item, result.classes.shape, regions)
        self.finish(result.item, outputs, self.facts(result.classes, result.disagreement, {}))

    def picture(self, ending: str, result: Segmented) -> Image.Image | None:
        """The picture with an ending; None for other files."""
        name = ending.partition(".")[0]
        if name == "_overlay":
            return Image.fromarray(self.overlay(result, np.unique(result.classes).tolist()))
        if name == "_colors":
            return Image.fromarray(self.model.palette[result.classes])
        if name in ("_confidence", "_disagreement"):
            values = result.confidence if name == "_confidence" else result.disagreement
            assert values is not None
            return Image.fromarray(values)
        if ending != ".png":
            return None
        picture = Image.fromarray(self.options.values[result.classes] if self.options.ids else result.classes)
        picture.putpalette(self.palette.flatten().tolist())
        return picture

    def overlay(self, result: Segmented, named: Iterable[int]) -> Pixels:
        """The classes' colors over the image, with a legend of the train ids ``named`` below where asked for."""
        colored = blended(result.image, self.model.palette, result.classes)
        if not self.options.legend:
            return colored
        legend = [(self.model.classes[i], self.model.palette[i].tolist()) for i in named]
        return np.concatenate([colored, legend_strip(colored.shape[1], legend)])

    @property
    def frame_endings(self) -> list[str]:
        """Of the files of a frame of a video."""
        pictures = ("_overlay.jpg", "_colors.png")  # these are videos
        return [ending for ending in endings_of("image", self.options) if ending not in pictures]

    def add_to_record(self, output: Path, content: Path, image: Path) -> None:
        """Record a file that is about to be moved to its place."""
        with self._recording:
            self.record.add(output, content, image)

    def save_as(self, result: Segmented, ending: str, temporary: Path) -> None:
        """Write a file that is not yet at its place."""
        picture = self.picture(ending, result)
        options = self.options
        if picture is not None:
            picture.save(temporary, format="JPEG" if ending.endswith(".jpg") else "PNG", quality=JPEG_QUALITY)
        elif ending == "_probabilities.npz":
            assert result.probabilities is not None
            with temporary.open("wb") as file:
                np.savez_compressed(file, probabilities=result.probabilities, classes=np.array(self.model.classes))
        elif ending == ".geojson":
            regions = traced_regions(result.classes, options.min_area, options.tolerance)
            with temporary.open("w", encoding="utf-8") as text:
                text.writelines(geojson(regions, self.about(result.item, result.classes.shape), None))
        else:
            outlines = filled_outlines(result.classes, options.min_area, options.tolerance)
            output = output_path(result.item.target, ending)
            content = labelme(outlines, self.about(result.item, result.classes.shape), output)
            temporary.write_text(content, encoding="utf-8")

    def about(self, item: Input, size: tuple[int, ...]) -> Facts:
        """What polygon files say about an image of (height, width)."""
        return Facts(item.path, (size[0], size[1]), self.model.classes)

    def save(self, output: Path, save: Callable[[Path], object], image: Path) -> None:
        """Let ``save`` write a file, record it, move it to its place.

        Raises:
            StorageError: it cannot be written.
        """

        def recorded(temporary: Path) -> None:
            save(temporary)
            self.add_to_record(output, temporary, image)

        write_file(output, recorded)

    def save_coco(self, item: Input, size: tuple[int, ...], regions: list[Region]) -> None:
        """Keep an image's annotations for the one file that is written at the end."""
        name = item.target.relative_to(self.record.folder).as_posix()
        height, width = size
        content = {
            "file_name": f"{name}{item.path.suffix}",
            "height": height,
            "width": width,
            "annotations": [coco_annotation(region) for region in regions],
        }
        path = coco_part(self.record.folder, name)
        path.parent.mkdir(exist_ok=True)
        write_file(path, lambda temporary: temporary.write_text(json.dumps(content), encoding="utf-8"))

    def facts(self, classes: Pixels, disagreement: Pixels | None, before: dict[str, Any]) -> dict[str, Any]:
        """What the table of class shares needs of a class map, and of the parts or frames ``before``, if any."""
        counts = np.bincount(classes.reshape(-1), minlength=256)[: len(self.model.classes)]
        different = None if disagreement is None else int(np.count_nonzero(disagreement))
        if before:
            counts += before["pixels"]
            different = None if different is None else different + before["disagreement"]
        return {"size": list(classes.shape), "pixels": counts.tolist(), "disagreement": different}

    def finish(self, item: Input, outputs: list[Path], facts: dict[str, Any]) -> None:
        """Record that all files of an input are there."""
        names = tuple(output.relative_to(self.record.folder).as_posix() for output in outputs)
        done = Done(self.settings, Done.source_of(item.path), names, {"image": str(item.path), **facts})
        with self._recording:
            self.record.finish(item.target, done)


def disagreements(maps: Sequence[Sequence[Maps]], count: int) -> list[NDArray[np.uint8] | None]:
    """For each of ``count`` images: 255 where two models predict different classes; None without models."""
    if not maps:
        return [None] * count
    one, other = maps
    return [np.where(a.classes != b.classes, np.uint8(255), np.uint8(0)) for a, b in zip(one, other, strict=True)]


def coco_part(folder: Path, name: str) -> Path:
    """The annotations of the input with this name of its results."""
    return folder / COCO_PARTS / f"{digest(name)}.json"


class WriterThreads:
    """Threads that write results, for a ``with`` block; leaving the block waits for them.

    A failure of ``write`` goes to ``failed``, which may raise it again and so end the block.
    """

    def __init__(
        self,
        write: Callable[[Segmented], None],
        failed: Callable[[Segmented, Exception], None],
        done: Callable[[Segmented], None] = lambda _: None,
    ) -> None:
        self.write, self.failed, self.done = write, failed, done
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
        while len(self.waiting) > 1 and sum(each.bytes_held for each, _ in self.waiting) > _WAITING_BYTES:
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
        self.done(result)
