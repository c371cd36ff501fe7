"""Conversion of a known data set to files for other programs: train-id labels, class statistics, halved copies.

Recipes of this project need none of these files.
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.annotations.base import FORMATS
from domainbridge.data.annotations.find import locate
from domainbridge.data.annotations.labels import AnnotationLabels
from domainbridge.data.annotations.listing import list_annotations
from domainbridge.data.annotations.reading import BACKGROUND_NAMES, normal
from domainbridge.data.decode import read_image
from domainbridge.data.folder import FolderRule, Listing
from domainbridge.data.index_image import read_index_image
from domainbridge.data.label_ids import CITYSCAPES_IDS
from domainbridge.data.labels import LabelDecoder
from domainbridge.data.layout_listing import list_layout
from domainbridge.data.layouts.base import LAYOUTS
from domainbridge.data.statistics import class_counts
from domainbridge.data.threads import usable_cores
from domainbridge.data.transforms import resize_image, resize_label
from domainbridge.errors import DataError, problem_list
from domainbridge.files import write_file, write_text
from domainbridge.types import IGNORE

__all__ = ["TO_LABEL_IDS", "Conversion", "convert_annotations", "convert_layout"]

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Conversion:
    """Output of a conversion.

    Attributes:
        out: output folder. It gets ``labels/`` with a PNG per image at the image's relative name,
            ``sample_class_stats.json``, ``samples_with_class.json``, ``conversion.json`` with the arguments of the
            conversion, and with ``half`` also ``images/``.
        label_ids: write Cityscapes label ids (7 = road ...) instead of train ids.
        half: write images and labels at half their size (bilinear, nearest), like Mapillary's validation set in the
            published setup (docs/method.md, section 7).
    """

    out: Path
    label_ids: bool = False
    half: bool = False


@dataclass(frozen=True)
class _Job:
    """One image to convert; ``name`` is its relative name in the output, without suffix."""

    name: str
    image: Path
    label: Path


def convert_layout(
    dataset: str, root: Path, split: str | None, rule: Conversion, progress: Callable[[int, int], None]
) -> int:
    """Convert a split of a known data set, in parallel.

    Existing files are kept, and every file is written atomically. After an interruption, the same command continues the
    conversion and gives the same bytes.

    Args:
        dataset: name of a layout.
        root: folder with the unpacked archives.
        split: a split of the layout; None for a data set without splits.
        rule: output of the conversion.
        progress: called with (images done, all images).

    Returns:
        The number of converted images.

    Raises:
        DataError: files are missing or unreadable (all readable files are converted nevertheless), or ``rule.out`` has
            files of another conversion.
        StorageError: a file cannot be written.
    """
    if rule.label_ids and LAYOUTS[dataset].label_space != "cityscapes19":
        raise DataError(
            f"{dataset}: the labels have the classes of {LAYOUTS[dataset].label_space}, which have no Cityscapes ids"
        )
    listing = list_layout(dataset, root, split, (), labeled=True).checked(f"{dataset} at {root}")
    identity: dict[str, object] = {"dataset": dataset, "split": split, "label_ids": rule.label_ids, "half": rule.half}
    return _convert_all(dataset, listing, LAYOUTS[dataset].decoder(root), rule, identity, progress)


def convert_annotations(
    name: str | None, path: Path, images: Path, rule: Conversion, progress: Callable[[int, int], None]
) -> tuple[int, tuple[str, ...]]:
    """Convert annotations to PNGs of class numbers, and write the names of the classes to ``classes.txt``.

    Class 0 is the background, if pixels without annotation are background; 255 is void. Otherwise as
    :func:`convert_layout`.

    Args:
        name: of the annotation format; None: found out.
        path: file or folder of the annotation.
        images: folder of the images.
        rule: output of the conversion; without Cityscapes ids.
        progress: called with (images done, all images).

    Returns:
        The number of converted images, and remarks, each a sentence.

    Raises:
        As :func:`convert_layout`.
    """
    place = locate(path, name)
    if place is None:
        raise DataError(f"{path}: no annotation of a known format ({', '.join(FORMATS.names())})")
    classes = _classes(place)
    listing = list_annotations(images, *place, FolderRule()).checked(str(path))
    unannotated = 0 if FORMATS[place[0]].background else IGNORE
    train_ids = {category: number for number, categories in enumerate(classes) for category in categories}
    decoder = AnnotationLabels(*place, train_ids, unannotated)
    identity: dict[str, object] = {"annotation_format": place[0], "path": str(path), "half": rule.half}
    written = _convert_all(place[0], listing, decoder, rule, identity, progress)
    write_text(rule.out / "classes.txt", "".join(f"{names[0]}\n" for names in classes))
    return written, listing.notes


def _classes(place: tuple[str, Path]) -> list[list[str]]:
    """Categories of each class, the background first where pixels without annotation are background."""
    name, root = place
    named = [category.name for category in FORMATS[name].index(root).categories]
    categories = [category for category in named if normal(category) != "ignore"]
    if not FORMATS[name].background:
        classes = [[category] for category in categories]
    else:
        backgrounds = [category for category in categories if normal(category) in BACKGROUND_NAMES]
        classes = [backgrounds or ["background"], *([c] for c in categories if c not in backgrounds)]
    if len(classes) > IGNORE:
        raise DataError(f"{root}: {len(classes)} classes; a PNG of class numbers holds at most {IGNORE}")
    return classes


def _convert_all(
    title: str,
    listing: Listing,
    decoder: LabelDecoder,
    rule: Conversion,
    identity: dict[str, object],
    progress: Callable[[int, int], None],
) -> int:
    """Convert all files of a listing; the number of images."""
    assert listing.labels is not None
    base = Path(os.path.commonpath([image.parent for image in listing.images]))
    jobs = [
        _Job(image.relative_to(base).with_suffix("").as_posix(), image, label)
        for image, label in zip(listing.images, listing.labels, strict=True)
    ]
    work = partial(_attempt, decoder, rule)
    _claim(rule.out, identity)
    counts: dict[str, NDArray[np.int64]] = {}
    problems: list[str] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for done, (job, outcome) in enumerate(zip(jobs, pool.map(work, jobs), strict=True), 1):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                counts[f"labels/{job.name}.png"] = outcome
            progress(done, len(jobs))
    if problems:
        raise DataError(problem_list(f"{title}: {len(problems)} of {len(jobs)} could not be converted", problems))
    _write_statistics(rule.out, counts)
    return len(jobs)


def _claim(out: Path, identity: dict[str, object]) -> None:
    """Mark the folder as the output of this conversion, so that no files of another conversion are mixed in."""
    path = out / "conversion.json"
    text = json.dumps(identity, indent=1) + "\n"
    if out.is_dir() and any(out.iterdir()) and (not path.is_file() or path.read_text(encoding="utf-8") != text):
        raise DataError(f"{out}: has files that are not from this conversion; choose another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _attempt(decoder: LabelDecoder, rule: Conversion, job: _Job) -> NDArray[np.int64] | str:
    """Pixels per train id of one converted label, or the message of its error."""
    try:
        return _convert(decoder, rule, job)
    except DataError as error:
        return str(error)


def _convert(decoder: LabelDecoder, rule: Conversion, job: _Job) -> NDArray[np.int64]:
    target = rule.out / "labels" / f"{job.name}.png"
    if rule.half:
        copy = rule.out / "images" / f"{job.name}{job.image.suffix}"
        if not copy.exists():
            image = read_image(job.image)
            _save(resize_image(image, (image.shape[0] // 2, image.shape[1] // 2)), copy)
    if target.exists():
        values = read_index_image(target).astype(np.uint8, copy=False)
        return class_counts(_TO_TRAIN_IDS[values] if rule.label_ids else values)
    label = decoder.read(job.label)
    if rule.half:
        label = resize_label(label, (label.shape[0] // 2, label.shape[1] // 2))
    _save(TO_LABEL_IDS[label] if rule.label_ids else label, target)
    return class_counts(label)


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(train id -> Cityscapes label id, Cityscapes label id -> train id); values without a class become 255."""
    to_label_ids, to_train_ids = np.full(256, IGNORE, np.uint8), np.full(256, IGNORE, np.uint8)
    for label_id, train_id in CITYSCAPES_IDS.items():
        to_label_ids[train_id], to_train_ids[label_id] = label_id, train_id
    return to_label_ids, to_train_ids


TO_LABEL_IDS, _TO_TRAIN_IDS = _tables()
"""Lookup tables uint8 (256,) between train ids and Cityscapes label ids."""


def _save(array: NDArray[np.uint8], path: Path) -> None:
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"

    def save(temporary: Path) -> None:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(temporary, format=kind, quality=_JPEG_QUALITY)

    write_file(path, save)


def _write_statistics(out: Path, counts: dict[str, NDArray[np.int64]]) -> None:
    """Classes per sample and samples per class, in the two files that published code of the field reads."""
    per_sample = []
    per_class: dict[str, list[list[str | int]]] = {}
    for name, pixels in sorted(counts.items()):
        present = {str(index): int(pixels[index]) for index in np.flatnonzero(pixels)}
        per_sample.append({**present, "file": name})
        for train_id, count in present.items():
            per_class.setdefault(train_id, []).append([name, count])
    ordered = {key: per_class[key] for key in sorted(per_class, key=int)}
    write_text(out / "sample_class_stats.json", json.dumps(per_sample, indent=1) + "\n")
    write_text(out / "samples_with_class.json", json.dumps(ordered, indent=1) + "\n")
