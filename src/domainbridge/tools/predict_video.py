"""Videos: read, segmented and written as a stream, so that a film of any length needs the memory of some frames."""

import math
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from domainbridge.errors import FileError, StorageError
from domainbridge.evaluation.inference_rule import same_size_batches
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.tools.predict_inputs import Input, output_path
from domainbridge.tools.predict_options import endings_of
from domainbridge.tools.predict_outputs import Outputs, Segmented, disagreements

__all__ = ["segment_video"]

_CODEC = "mp4v"
"""MPEG-4 Part 2: in every build of OpenCV, H.264 in few."""
_FRAMES_PER_SECOND = 25.0
"""Where a file does not say."""
_FRAMES_TOGETHER = 16
_FRAMES_WAITING = 8
_MISSING_SHARE = 0.1
"""Of the frames that a file announces; headers of some formats are estimates."""
_DIGITS = 6

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")


@dataclass(frozen=True)
class _Frame:
    number: int
    image: Pixels


def segment_video(
    model: SegmentationModel,
    paths: Sequence[SegmentationModel],
    item: Input,
    outputs: Outputs,
    *,
    report: Callable[[str], None],
    progress: Callable[[float], None],
) -> None:
    """Write the videos and frames that are asked for; without a choice the overlay. Sound is not kept.

    Args:
        model: see there.
        paths: the models of the two paths, where their disagreement is asked for.
        item: the video.
        outputs: what is written.
        report: gets a line for each remark.
        progress: called with the share that is done.

    Raises:
        DataError: the video cannot be read, or ends before a tenth of its frames are left.
        StorageError: a result cannot be written.
    """
    options, facts = outputs.options, dict[str, Any]()
    with ExitStack() as stack:
        video = _open(item.path)
        stack.callback(video.release)
        announced = max(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        writer = stack.enter_context(_Writer(item, outputs, _speed(video, item.path, report) / options.every))
        frames = _ahead(_frames(video, options.every))
        count = last = 0
        for batch in same_size_batches(
            frames, lambda frame: frame.image.shape, lambda h, w: min(model.images_at_once(h, w), _FRAMES_TOGETHER)
        ):
            images = [frame.image for frame in batch]
            results = model.maps(images, confidence=options.confidence, probabilities=options.probabilities)
            different = disagreements([path.maps(images) for path in paths], len(images))
            for frame, maps, differs in zip(batch, results, different, strict=True):
                result = Segmented(item, frame.image, maps.classes, maps.confidence, maps.probabilities, differs)
                writer.add(frame.number, result)
                facts = outputs.facts(maps.classes, differs, facts)
            count, last = count + len(batch), batch[-1].number
            progress(min(last / announced, 1.0) if announced else 0.0)
        if not count:
            raise FileError(item.path, "no frame of this video can be decoded", "no frame can be decoded")
        if last < announced * (1 - _MISSING_SHARE) - options.every:
            raise FileError(
                item.path,
                f"only {last} of {announced} frames can be decoded; the file is truncated or damaged",
                "video truncated or damaged",
            )
        written = writer.publish()
    outputs.finish(item, written, {**facts, "frames": count})


def _open(path: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise FileError(
            path,
            "unreadable or truncated, or a video of an unknown kind; restore or remove the file",
            "unreadable video",
        )
    return video


def _speed(video: cv2.VideoCapture, path: Path, report: Callable[[str], None]) -> float:
    """Frames a second."""
    speed = float(video.get(cv2.CAP_PROP_FPS))
    if math.isfinite(speed) and 0 < speed <= 1000:
        return speed
    report(f"note: {path}: does not say how many frames a second has; {_FRAMES_PER_SECOND:g} are taken")
    return _FRAMES_PER_SECOND


def _frames(video: cv2.VideoCapture, every: int) -> Iterator[_Frame]:
    """Each frame of a number, RGB; numbers begin with 1."""
    number = 0
    while video.grab():
        number += 1
        if (number - 1) % every == 0:
            there, image = video.retrieve()
            if there:
                yield _Frame(number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a thread makes the next few while one is used."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(_FRAMES_WAITING))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, items, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


class _Writer:
    """A thread that writes frames in their order into temporary files; ``publish`` moves them to their places."""

    def __init__(self, item: Input, outputs: Outputs, speed: float) -> None:
        self.item, self.outputs, self.speed = item, outputs, speed
        self.endings = endings_of("video", outputs.options)
        item.target.parent.mkdir(parents=True, exist_ok=True)
        self.folder = item.target.with_name(f".{item.target.name}.{os.getpid()}.{threading.get_ident()}.video.tmp")
        self.videos: dict[str, cv2.VideoWriter] = {}
        self.pool = ThreadPoolExecutor(1)
        self.waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Writer":
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        for video in self.videos.values():
            video.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, number: int, result: Segmented) -> None:
        """Write a frame; waits while several wait."""
        self.waiting.append(self.pool.submit(self._write, number, result))
        while len(self.waiting) > _FRAMES_WAITING:
            self.waiting.popleft().result()

    def publish(self) -> list[Path]:
        """Finish the files and move them to their places; their paths.

        Raises:
            StorageError: one cannot be written.
        """
        while self.waiting:
            self.waiting.popleft().result()
        written = []
        for ending in self.endings:
            output = output_path(self.item.target, ending.rstrip("/"))
            if ending.endswith("/"):
                self._move_frames(output)
            else:
                self.videos.pop(ending).release()
                self.outputs.save(output, (self.folder / f"video{ending}").replace, self.item.path)
            written.append(output)
        return written

    def _write(self, number: int, result: Segmented) -> None:
        for ending in self.endings:
            if ending.endswith("/"):
                self._write_frame(number, result)
                continue
            picture = self._picture(ending, result)
            if ending not in self.videos:
                self.videos[ending] = self._new_video(ending, picture.shape)
            self.videos[ending].write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _picture(self, ending: str, result: Segmented) -> Pixels:
        """RGB with even sides, as the codec needs them."""
        if ending == "_overlay.mp4":
            picture = self.outputs.overlay(result, range(len(self.outputs.model.classes)))
        else:
            picture = self.outputs.model.palette[result.classes]
        height, width = picture.shape[:2]
        return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def _new_video(self, ending: str, shape: tuple[int, ...]) -> cv2.VideoWriter:
        path = self.folder / f"video{ending}"
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODEC), self.speed, (shape[1], shape[0]))
        if not video.isOpened():
            raise StorageError(
                f"{path}: OpenCV cannot write a video of {shape[1]}x{shape[0]} pixels here; take --frames instead"
            )
        return video

    def _write_frame(self, number: int, result: Segmented) -> None:
        frames = self.folder / "frames"
        frames.mkdir(exist_ok=True)
        for ending in self.outputs.frame_endings:
            self.outputs.save_as(result, ending, frames / f"{number:0{_DIGITS}}{ending}")

    def _move_frames(self, output: Path) -> None:
        """Put the folder of frames in the place of an earlier one, whose files are all our own."""
        for path in sorted((self.folder / "frames").iterdir()):
            self.outputs.add_to_record(output / path.name, path, self.item.path)
        if output.is_dir():
            output.rename(self.folder / "earlier")
        (self.folder / "frames").rename(output)
