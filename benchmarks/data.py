"""Training pairs per second and core, from full-size PNGs, from JPEGs, and from reduced copies."""

import tempfile
import zlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measure import interleaved
from benchmarks.reference_implementation.data import training_pair
from benchmarks.report import Answer, answer
from domainbridge.data.batches import CropRule, PairedCrops
from domainbridge.data.dataset import Dataset, FileDataset
from domainbridge.data.label_spaces import BUILT_IN, space_table
from domainbridge.data.labels import IdLabels
from domainbridge.data.storage.cache import CacheRule, build_cache
from domainbridge.data.transforms import ResizeRule

__all__ = ["from_cache", "from_jpeg", "from_jpeg_cache", "from_png"]

_SOURCE, _TARGET = (1914, 1052), (2048, 1024)
_CROP = 512
_PAIRS = 4
_SENSOR_NOISE = 1.6
"""In gray levels: with it the PNGs have 2.7 MB, about what those of GTA5 and Cityscapes have."""


def from_png(rounds: int = 9) -> Answer:
    """Floor: inflating the three PNGs of a pair, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = _files(Path(folder), "png")
        streams = [_compressed(path) for path in _paths(source, target)]
        return _compare(source, target, (source, target), lambda: [zlib.decompress(part) for part in streams], rounds)


def from_jpeg(rounds: int = 9) -> Answer:
    """The same with JPEG images (labels are PNGs); floor: decoding the files of a pair."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = _files(Path(folder), "jpg")
        contents = [np.fromfile(path, np.uint8) for path in _paths(source, target)]
        return _compare(
            source,
            target,
            (source, target),
            lambda: [cv2.imdecode(content, cv2.IMREAD_UNCHANGED) for content in contents],
            rounds,
        )


def from_cache(rounds: int = 9) -> Answer:
    """Lossless copies, against the reference implementation on PNGs; floor: copying two crops and a label."""
    return _cached("png", "lossless", rounds)


def from_jpeg_cache(rounds: int = 9) -> Answer:
    """JPEG copies, against the reference implementation on JPEGs."""
    return _cached("jpg", "jpeg", rounds)


def _cached(kind: str, copies: str, rounds: int) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        source, target = _files(Path(folder), kind)
        rule = CacheRule(Path(folder) / "copies", "lossless" if copies == "lossless" else "jpeg")
        cached = (build_cache(source, rule, lambda _: None), build_cache(target, rule, lambda _: None))
        images = [np.zeros((_CROP, _CROP, 3), np.uint8) for _ in range(2)]
        label = np.zeros((_CROP, _CROP), np.uint8)
        return _compare(source, target, cached, lambda: ([image.copy() for image in images], label.copy()), rounds)


def _compare(
    source: FileDataset,
    target: FileDataset,
    read: tuple[Dataset, Dataset],
    floor: Callable[[], object],
    rounds: int,
) -> Answer:
    """All pairs once per round and way; figures are per pair."""
    cv2.setNumThreads(0)  # as in a loader process
    stream = PairedCrops(*read, CropRule((_CROP, _CROP)), batch_size=1, seed=0, stage="benchmark")
    generator = np.random.default_rng(0)
    assert source.labels is not None
    triples = list(zip(source.images, source.labels, target.images, strict=True))
    turn = iter(range(10**9))
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: stream[next(turn)],
        "reference_implementation": lambda: training_pair(*triples[next(turn) % _PAIRS], _CROP, generator),
        "floor": floor,
    }
    figures = interleaved(ways, rounds=rounds * _PAIRS, warm_ups=2)
    speed = {name: round(1 / value.cpu_seconds, 1) for name, value in figures.items()}
    return answer(figures, crop=_CROP, pairs_per_second_and_core=speed, source=_SOURCE, target=_TARGET)


def _files(folder: Path, suffix: str) -> tuple[FileDataset, FileDataset]:
    """Source pairs and target images of the sizes of GTA5 and Cityscapes, enlarged from the quickstart images."""
    shipped = Path(str(resources.files("domainbridge") / "quickstart"))
    made: dict[str, list[Path]] = {"source": [], "label": [], "target": []}
    for number in range(_PAIRS):
        clear = sorted((shipped / "clear/images/train").iterdir())[number]
        fog = sorted((shipped / "fog/images/train").iterdir())[number]
        label = shipped / "clear/labels/train" / f"{clear.stem}.png"
        made["source"].append(_save(folder / f"source-{number}.{suffix}", _upscaled(clear, _SOURCE, number)))
        made["target"].append(_save(folder / f"target-{number}.{suffix}", _upscaled(fog, _TARGET, number)))
        large = np.asarray(Image.open(label).resize(_SOURCE, Image.Resampling.NEAREST))
        made["label"].append(_save(folder / f"label-{number}.png", large))
    space = BUILT_IN["cityscapes19"]
    decoder = IdLabels.in_space(space_table(space, space), space)
    source = FileDataset("source", tuple(made["source"]), tuple(made["label"]), decoder, ResizeRule(1280, 720))
    return source, FileDataset("target", tuple(made["target"]), resize=ResizeRule(1024, 512))


def _upscaled(path: Path, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    image = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC), np.float32)
    noise = np.random.default_rng(seed).normal(0, _SENSOR_NOISE, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def _save(path: Path, array: NDArray[np.uint8]) -> Path:
    Image.fromarray(array).save(path, **({"quality": 92} if path.suffix == ".jpg" else {}))
    return path


def _paths(source: FileDataset, target: FileDataset) -> tuple[Path, Path, Path]:
    assert source.labels is not None
    return source.images[0], source.labels[0], target.images[0]


def _compressed(path: Path) -> bytes:
    """The zlib stream inside a PNG."""
    content, position, parts = path.read_bytes(), 8, []
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"IDAT":
            parts.append(content[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(parts)
