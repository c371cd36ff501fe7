"""What a run keeps of the images that it scores: pixel counts, reduced class maps, the images themselves once."""

import io
import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import scoring_rule
from domainbridge.config.schema import Recipe
from domainbridge.data.dataset import FileDataset, evenly_spread
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.transforms import ResizeRule, resize_image, resize_label
from domainbridge.evaluation.evaluate import ScoredImage, ScoringRule, scored_images
from domainbridge.files import digest, write_arrays
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.transfer import from_device
from domainbridge.run.context import Context
from domainbridge.run.image_records import (
    COUNTS_FILE,
    PICTURES_FILE,
    TEST_COUNTS_FILE,
    ClassMap,
    Picture,
    kept_fingerprint,
    packed_maps,
)
from domainbridge.runtime.device import Runtime
from domainbridge.types import Sample

__all__ = [
    "ImageRecorder",
    "held_out_recorder",
    "images_to_predict",
    "predict_unlabeled",
    "save_images",
    "stage_recorder",
]

_SIDE = 320
"""Pixels of the longer side of a kept class map or picture."""
_MOST_MAPS = 500
"""Kept class maps and pictures per target; of more images, evenly spread ones."""
_JPEG_QUALITY = 80
_READ_LATER = 8
"""Images whose results stay in the queue of a GPU before the first is read."""
_MOST_UNLABELED = 100
"""Images that are predicted of a target without labels; evenly spread ones."""


def images_to_predict(recipe: Recipe, data: DataSets) -> int:
    """How many images a stage is scored on or predicted for."""
    return sum(len(_indices(files)) for files in _predicted_sets(recipe, data).values())


def _predicted_sets(recipe: Recipe, data: DataSets) -> dict[str, FileDataset]:
    """By target: its validation set, or the target's images where there is none."""
    pairs = zip(recipe.targets, data.targets, strict=True)
    return {target.name: data.validation.get(target.name, files) for target, files in pairs}


def _indices(files: FileDataset) -> list[int]:
    return evenly_spread(len(files), _MOST_UNLABELED if files.labels is None else len(files))


def stage_recorder(context: Context, data: DataSets) -> "ImageRecorder":
    """A recorder for a stage; images are kept once per run."""
    recorder = ImageRecorder(scoring_rule(context.recipe), _predicted_sets(context.recipe, data))
    kept = kept_fingerprint(context.folder / PICTURES_FILE)
    recorder.with_pictures = context.runtime.processes.broadcast(kept != recorder.files_fingerprint)
    return recorder


def held_out_recorder(context: Context, data: DataSets) -> "ImageRecorder":
    """A recorder of the counts of test images; no class map and no picture of them is kept."""
    recorder = ImageRecorder(scoring_rule(context.recipe), data.test, most_maps=0, counts_file=TEST_COUNTS_FILE)
    recorder.with_pictures = False
    return recorder


def predict_unlabeled(
    model: Segmenter, recorder: "ImageRecorder", runtime: Runtime, progress: Callable[[], None]
) -> None:
    """Predict evenly spread images of each target without labels."""
    for name, files in recorder.datasets.items():
        if files.labels is None:
            mine = _indices(files)[runtime.processes.rank :: runtime.processes.count]
            with closing(scored_images(model, files, mine, recorder.rule, runtime.device)) as images:
                for image in images:
                    recorder.add(name, image)
                    progress()


def save_images(recorder: "ImageRecorder", context: Context, stage: str, fingerprint: str) -> None:
    """Write what all processes recorded; ``fingerprint``: of the stage's scores."""
    parts = context.runtime.processes.gather(recorder.rows)
    if context.runtime.processes.is_main:
        recorder.write_counts(parts, context.folder / stage / recorder.counts_file, fingerprint)
        if recorder.with_pictures:
            recorder.write_pictures(parts, context.folder / PICTURES_FILE, recorder.files_fingerprint)


@dataclass
class _Row:
    """What one process keeps of one image."""

    index: int
    cells: NDArray[np.uint16]
    counts: NDArray[np.uint32]
    class_map: ClassMap | None
    picture: Picture | None


class ImageRecorder:
    """Takes the scored images of one process; the rows of all processes make a file.

    Args:
        rule: with the space of the scores.
        datasets: by target; those that are predicted.
        most_maps: class maps and pictures per target.
        counts_file: name of the file of counts and class maps in a stage's folder.

    Attributes:
        with_pictures: whether reduced images and labels are kept too.
    """

    def __init__(
        self,
        rule: ScoringRule,
        datasets: Mapping[str, FileDataset],
        *,
        most_maps: int = _MOST_MAPS,
        counts_file: str = COUNTS_FILE,
    ) -> None:
        self.rule, self.datasets, self.with_pictures, self.counts_file = rule, datasets, True, counts_file
        self._rows: dict[str, list[_Row]] = {name: [] for name in datasets}
        self._pending: deque[Callable[[], None]] = deque()
        self.mapped = {name: set(evenly_spread(len(files), most_maps)) for name, files in datasets.items()}

    @property
    def files_fingerprint(self) -> str:
        """Changes when the images, their labels, or the space of the labels change."""
        files = {name: files_fingerprint(files) for name, files in self.datasets.items()}
        return digest([files, self.rule.space.classes])

    @property
    def rows(self) -> dict[str, list[_Row]]:
        """What was kept of every image that was added, by target."""
        while self._pending:
            self._pending.popleft()()
        return self._rows

    def add(self, target: str, image: ScoredImage) -> None:
        """Keep the counts of an image, and a reduced class map of some.

        A GPU's results are read some images later, so that the next images are queued meanwhile.
        """
        mapped = image.index in self.mapped[target]
        copies, arrived = from_device(image.counts, *((image.predicted,) if mapped else ()))

        def keep() -> None:
            arrived()
            self._keep(target, image.index, image.sample, *(copy.numpy() for copy in copies))

        self._pending.append(keep)
        if len(self._pending) > (_READ_LATER if image.counts.device.type == "cuda" else 0):
            self._pending.popleft()()

    def _keep(
        self,
        target: str,
        index: int,
        sample: Sample,
        all_counts: NDArray[np.int64],
        predicted: NDArray[np.uint8] | None = None,
    ) -> None:
        counts = all_counts.flatten()
        cells = np.flatnonzero(counts)
        class_map, picture = None, None
        if predicted is not None:
            height, width = predicted.shape
            size = ResizeRule(_SIDE, _SIDE).size_for(height, width) if max(height, width) > _SIDE else (height, width)
            class_map = self.rule.table[resize_label(predicted, size)]
            if self.with_pictures:
                picture = Picture(
                    _jpeg(resize_image(np.ascontiguousarray(sample.image), size)),
                    None if sample.label is None else resize_label(np.ascontiguousarray(sample.label), size),
                )
        row = _Row(index, cells.astype(np.uint16), counts[cells].astype(np.uint32), class_map, picture)
        self._rows[target].append(row)

    def write_counts(self, parts: Sequence[Mapping[str, list[_Row]]], path: Path, fingerprint: str) -> None:
        """Write the file of counts; ``parts``: the rows of every process."""
        arrays: dict[str, Any] = {}
        targets = []
        for number, (name, files) in enumerate(self.datasets.items()):
            rows = _in_order(parts, name)
            maps = [(place, row.class_map) for place, row in enumerate(rows) if row.class_map is not None]
            names = _relative_names(files)
            description = {"name": name, "labeled": files.labels is not None, "total": len(files)}
            targets.append({**description, "images": [names[row.index] for row in rows]})
            arrays |= {
                f"{number}.lengths": np.array([len(row.cells) for row in rows], np.uint32),
                f"{number}.cells": np.concatenate([np.zeros(0, np.uint16), *(row.cells for row in rows)]),
                f"{number}.counts": np.concatenate([np.zeros(0, np.uint32), *(row.counts for row in rows)]),
                **packed_maps(number, maps),
            }
        space = {"classes": self.rule.space.classes, "colors": self.rule.space.colors}
        content = {
            "fingerprint": fingerprint,
            "targets": targets,
            "exclude_classes": self.rule.exclude_classes,
            **space,
        }
        write_arrays(path, content=np.array(json.dumps(content)), **arrays)

    def write_pictures(self, parts: Sequence[Mapping[str, list[_Row]]], path: Path, fingerprint: str) -> None:
        """Write ``validation-images.npz``; ``parts``: the rows of every process."""
        arrays: dict[str, Any] = {}
        for number, name in enumerate(self.datasets):
            pictures = [(i, row.picture) for i, row in enumerate(_in_order(parts, name)) if row.picture is not None]
            labels = [(place, picture.label) for place, picture in pictures if picture.label is not None]
            arrays |= {
                f"{number}.places": np.array([place for place, _ in pictures], np.uint32),
                f"{number}.lengths": np.array([len(picture.jpeg) for _, picture in pictures], np.uint32),
                f"{number}.jpeg": np.frombuffer(b"".join(picture.jpeg for _, picture in pictures), np.uint8),
                **packed_maps(number, labels),
            }
        content = {"fingerprint": fingerprint, "targets": list(self.datasets)}
        write_arrays(path, content=np.array(json.dumps(content)), **arrays)


def _in_order(parts: Sequence[Mapping[str, list[_Row]]], target: str) -> list[_Row]:
    return sorted((row for part in parts for row in part[target]), key=lambda row: row.index)


def _relative_names(files: FileDataset) -> list[str]:
    """Names below the common folder of all images."""
    folder = os.path.commonpath([path.parent for path in files.images]) if files.images else ""
    return [path.relative_to(folder).as_posix() for path in files.images]


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
