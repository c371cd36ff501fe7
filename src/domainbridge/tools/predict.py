"""Segmenting the user's own images, of any size: decoding, network and writing overlap."""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainbridge.data.threads import in_threads
from domainbridge.errors import DataError, StorageError, TrainingError, problem_list
from domainbridge.evaluation.image_predictor import ImagePredictor
from domainbridge.evaluation.inference_rule import same_size_batches
from domainbridge.runtime.memory import EVALUATION_ADVICE, enough_memory
from domainbridge.tools.open_model import open_model
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.predict_inputs import collect_inputs
from domainbridge.tools.predict_outputs import Outputs, Segmented, WriterThreads

__all__ = ["predict_files"]


def predict_files(
    model: ImagePredictor | Path | str,
    inputs: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    confidence: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> int:
    """Write ``NAME.png`` (palette PNG, value = train id) per image, and what else is asked for.

    The folder ``out`` gets a record of what was written, ``.domainbridge-predict.jsonl``. Files in the record may be
    replaced by a later call; no other file is ever replaced.

    Args:
        model: a loaded model, or the path to a model folder or an exported file.
        inputs: files and folders; a folder's inner structure is kept below ``out``.
        out: folder, created when missing.
        overlay: also ``NAME_overlay.jpg``, the classes' colors over the image.
        confidence: also ``NAME_confidence.png``, 255 * the largest probability.
        report: gets a line for each remark: files left out, distinct names, images in windows.

    Returns:
        How many images were segmented.

    Raises:
        InputError: nothing was written if an input is missing or a file that predict did not write would be replaced;
            images that cannot be read are left out and listed at the end.
        StorageError: a result cannot be written.
    """
    endings = [".png", *(["_overlay.jpg"] if overlay else []), *(["_confidence.png"] if confidence else [])]
    chosen = collect_inputs(inputs, out, endings)
    for note in chosen.notes:
        report(f"note: {note}")
    predictor = open_model(model) if isinstance(model, Path | str) else model
    outputs = Outputs(predictor.palette, OwnOutputs(out), endings)
    failures: dict[Path, str] = {}

    def failed(result: Segmented, error: Exception) -> None:
        cause = error.__cause__
        too_long = isinstance(error, StorageError) and isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG
        if not too_long and not isinstance(error, DataError):
            raise error
        failures[result.path] = str(error)

    with WriterThreads(outputs.write, failed) as writers:
        images = _decoded(predictor, outputs, chosen.pairs, failures)
        for batch in _batches(images, predictor):
            for result in _segmented(predictor, batch, failures, report, confidence=confidence):
                writers.add(result)
    if failures:
        told = [failures[path] for path, _ in chosen.pairs if path in failures]
        done = len(chosen.pairs) - len(told)
        raise DataError(problem_list(f"predict: {done} images were segmented, {len(told)} not", told, limit=100))
    return len(chosen.pairs)


@dataclass(frozen=True)
class _Decoded:
    path: Path
    target: Path
    image: NDArray[np.uint8]


def _decoded(
    predictor: ImagePredictor, outputs: Outputs, pairs: Sequence[tuple[Path, Path]], failures: dict[Path, str]
) -> Iterator[_Decoded]:
    """The images in order, decoded in threads; those that cannot be decoded are noted in ``failures``."""

    def decode(index: int) -> NDArray[np.uint8] | str:
        path, _ = pairs[index]
        try:
            with enough_memory(str(path), EVALUATION_ADVICE):
                image = _read(predictor, path)
            outputs.refuse(path, image)
        except (DataError, TrainingError) as error:
            return str(error)
        return image

    def size(image: NDArray[np.uint8] | str) -> int:
        return 0 if isinstance(image, str) else image.nbytes

    for (path, target), image in zip(pairs, in_threads(decode, range(len(pairs)), size), strict=True):
        if isinstance(image, str):
            failures[path] = image
        else:
            yield _Decoded(path, target, image)


def _read(predictor: ImagePredictor, path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, or not a regular one")
    try:
        return predictor.read(path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into; the other images go on
        raise DataError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from error


def _batches(images: Iterable[_Decoded], predictor: ImagePredictor) -> Iterator[list[_Decoded]]:
    """Neighbors of one size, as many as go through the network together."""
    return same_size_batches(images, lambda each: each.image.shape, predictor.images_at_once)


def _segmented(
    predictor: ImagePredictor,
    batch: list[_Decoded],
    failures: dict[Path, str],
    report: Callable[[str], None],
    *,
    confidence: bool,
) -> Iterator[Segmented]:
    """The results of a batch; images that do not fit into memory together are tried one by one."""
    try:
        with enough_memory(str(batch[0].path), EVALUATION_ADVICE):
            results = predictor.class_maps([each.image for each in batch], confidence=confidence)
            pairs = [(each, *result.arrays()) for each, result in zip(batch, results, strict=True)]
    except TrainingError as error:
        if len(batch) == 1:
            failures[batch[0].path] = str(error)
        else:
            for each in batch:
                yield from _segmented(predictor, [each], failures, report, confidence=confidence)
        return
    for each, classes, sure in pairs:
        windows = predictor.windows_for(each.image.shape[0], each.image.shape[1])
        if windows is not None and windows.context:
            report(f"{each.path}: {each.image.shape[1]}x{each.image.shape[0]} pixels, in {windows}")
        yield Segmented(each.path, each.target, each.image, classes, sure)
