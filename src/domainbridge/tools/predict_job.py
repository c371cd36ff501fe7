"""One process's share of the files to segment: decoding, network and writing overlap."""

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.headers import LARGEST_WHOLE, Header, read_header
from domainbridge.data.raster import has_rasterio, reads_by_windows
from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError, FileError, StorageError
from domainbridge.evaluation.inference_rule import same_size_batches
from domainbridge.evaluation.segmentation_model import Maps, SegmentationModel
from domainbridge.tools.predict_inputs import Input
from domainbridge.tools.predict_large import segment_large
from domainbridge.tools.predict_outputs import Outputs, Segmented, WriterThreads, disagreements
from domainbridge.tools.predict_video import segment_video

__all__ = ["LARGE", "Job"]

LARGE = 32 * 2**20
"""Pixels from which an image is read by windows, where its format allows and rasterio is there."""
_ADVICE = (
    "Smaller pieces need less: sliding windows (--slide; in a recipe evaluation.mode=slide), a smaller size "
    "(--resize), no mirrored image, no --scales above 1. On a GPU, --device cpu takes the machine's memory"
)


@dataclass(frozen=True)
class _Decoded:
    item: Input
    image: NDArray[np.uint8]


@dataclass
class Job:
    """The share of one process."""

    model: SegmentationModel
    paths: Sequence[SegmentationModel]
    outputs: Outputs
    report: Callable[[str], None]
    progress: Callable[[float], None]
    failures: dict[Path, DataError] = field(default_factory=dict)
    large: list[tuple[Input, Header]] = field(default_factory=list)
    done: int = 0

    def carry_out(self, items: Sequence[Input]) -> None:
        """Images first, large ones and videos after them; a file that cannot be used stops no other one."""
        self.progress(0)
        images = [item for item in items if item.kind != "video"]
        with WriterThreads(self.outputs.write, self._failed, lambda _: self._one_done()) as writers:
            for batch in same_size_batches(
                self._decoded(images), lambda each: each.image.shape, self.model.images_at_once
            ):
                for result in self._segmented(batch):
                    writers.add(result)
        for item, header in self.large:
            self._alone(item, partial(segment_large, self.model, self.paths, item, header, self.outputs))
        for item in items:
            if item.kind == "video":
                self._alone(item, partial(segment_video, self.model, self.paths, item, self.outputs))

    def _alone(self, item: Input, work: Callable[..., None]) -> None:
        """One file that is more than an image in memory; ``work`` gets what shows its progress and remarks."""
        try:
            work(report=self.report, progress=lambda share: self.progress(self.done + share))
        except MemoryError:
            self.failures[item.path] = _too_large(item.path)
        except DataError as error:
            self.failures[item.path] = error
        except StorageError as error:
            self._keep_or_raise(item.path, error)
        self._one_done()

    def _one_done(self) -> None:
        self.done += 1
        self.progress(self.done)

    def _failed(self, result: Segmented, error: Exception) -> None:
        self._keep_or_raise(result.item.path, error)

    def _keep_or_raise(self, path: Path, error: Exception) -> None:
        cause = error.__cause__
        too_long = isinstance(error, StorageError) and isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG
        if too_long:
            self.failures[path] = FileError(path, str(error), "the name of a result would be too long")
        elif isinstance(error, DataError):
            self.failures[path] = error
        else:
            raise error

    def _decoded(self, items: Sequence[Input]) -> Iterator[_Decoded]:
        """The images in order, decoded in threads; those that cannot be are noted, large ones kept for later."""

        def decode(index: int) -> NDArray[np.uint8] | Header | DataError:
            item = items[index]
            try:
                header = _header_if_large(item)
                if header is not None:
                    return header
                image = _read(self.model, item.path)
                self.outputs.refuse(item.path, (image.shape[0], image.shape[1]))
            except MemoryError:
                return _too_large(item.path)
            except DataError as error:
                return error
            return image

        def size(image: NDArray[np.uint8] | Header | DataError) -> int:
            return image.nbytes if isinstance(image, np.ndarray) else 0

        for item, image in zip(items, in_threads(decode, range(len(items)), size), strict=True):
            if isinstance(image, DataError):
                self.failures[item.path] = image
                self._one_done()
            elif isinstance(image, Header):
                self.large.append((item, image))
            else:
                yield _Decoded(item, image)

    def _segmented(self, batch: list[_Decoded]) -> Iterator[Segmented]:
        """The results of a batch; images that do not fit into memory together are tried one by one."""
        options, images = self.outputs.options, [each.image for each in batch]
        results: list[Maps] | None
        try:
            results = self.model.maps(images, confidence=options.confidence, probabilities=options.probabilities)
            different = disagreements([path.maps(images) for path in self.paths], len(images))
        except DataError as error:  # an exported network takes no small images
            for each in batch:
                self.failures[each.item.path] = error
                self._one_done()
            return
        except MemoryError:
            results = None
        # Behind the block: inside, the error would keep the tensors of the failed pass in the device's memory.
        if results is None and len(batch) > 1:
            for one in batch:
                yield from self._segmented([one])
            return
        if results is None:
            self.failures[batch[0].item.path] = _too_large(batch[0].item.path)
            self._one_done()
            return
        for each, maps, differs in zip(batch, results, different, strict=True):
            height, width = each.image.shape[:2]
            windows = self.model.windows_for(height, width)
            if windows is not None and windows.context:
                self.report(f"{each.item.path}: {width}x{height} pixels, in {windows}")
            yield Segmented(each.item, each.image, maps.classes, maps.confidence, maps.probabilities, differs)


def _header_if_large(item: Input) -> Header | None:
    """The header of an image that is read by windows; None: it is decoded as a whole.

    Raises:
        FileError: no image, or too large to be decoded as a whole.
    """
    if not item.path.is_file():
        return None
    header = read_header(item.path, largest=None)
    pixels = header.width * header.height
    if has_rasterio() and reads_by_windows(header) and (item.kind == "map" or pixels > LARGE):
        return header
    if pixels > LARGEST_WHOLE and not has_rasterio():
        raise FileError(
            item.path,
            f"{header.width}x{header.height} pixels; images of more than {LARGEST_WHOLE / 1e6:.0f} million are read by "
            "windows with rasterio: pip install 'domainbridge[geotiff]'",
        )
    return None


def _read(model: SegmentationModel, path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, or not a regular one")
    try:
        return model.read(path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into; the other images go on
        raise DataError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from error


def _too_large(path: Path) -> FileError:
    return FileError(path, f"does not fit into this device's memory. {_ADVICE}")
