"""Segmenting the user's own images, of any size."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.errors import DataError, StorageError, TrainingError, problem_list
from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.files import write_file
from domainbridge.runtime.device import EVALUATION_ADVICE, enough_memory
from domainbridge.tools.own_outputs import OwnOutputs
from domainbridge.tools.predict_inputs import collect_inputs, output_path

__all__ = ["blend", "predict_files"]

_JPEG_QUALITY = 92
_JPEG_SIDE = 65500
"""Longest side of a JPEG file that the library writes."""
_ROWS = 2**22
"""Pixels that are blended at a time."""


def predict_files(
    model: Predictor | Path | str,
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
        model: a loaded model, or the path to a model folder.
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
    writer = _Writer(model if isinstance(model, Predictor) else load_predictor(Path(model)), OwnOutputs(out), endings)
    failures = [failure for path, target in chosen.pairs if (failure := _try(writer, path, target, report))]
    if failures:
        done = len(chosen.pairs) - len(failures)
        raise DataError(
            problem_list(f"predict: {done} images were segmented, {len(failures)} not", failures, limit=100)
        )
    return len(chosen.pairs)


def _try(writer: "_Writer", path: Path, target: Path, report: Callable[[str], None]) -> str | None:
    """Segment one image; the reason if that is not possible, so that the others are segmented all the same."""
    try:
        with enough_memory(str(path), EVALUATION_ADVICE):
            image = _read(writer.predictor, path)
            windows = writer.predictor.windows_for(image.shape[0], image.shape[1])
            if windows is not None and windows.context:
                report(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, in {windows}")
            writer.write(path, image, target)
    except (DataError, TrainingError) as error:
        return str(error)
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG:
            return str(error)
        raise
    return None


def _read(predictor: Predictor, path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        raise DataError(f"{path}: no such file, or not a regular one")
    try:
        return predictor.read(path)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise whatever their parsers run into; the other images go on
        raise DataError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class _Writer:
    """Writes the results of images, each recorded."""

    predictor: Predictor
    record: OwnOutputs
    endings: Sequence[str]

    def write(self, path: Path, image: NDArray[np.uint8], target: Path) -> None:
        """Segment an image and write its files."""
        if "_overlay.jpg" in self.endings and max(image.shape) > _JPEG_SIDE:
            raise DataError(f"{path}: an overlay is a JPEG of at most {_JPEG_SIDE} pixels a side; leave out --overlay")
        result = self.predictor.class_map(image, confidence="_confidence.png" in self.endings)
        labels = result.classes.cpu().numpy()
        target.parent.mkdir(parents=True, exist_ok=True)
        for ending in self.endings:
            if ending == "_overlay.jpg":
                picture = Image.fromarray(_blended(image, self.predictor.palette, labels))
            elif ending == "_confidence.png":
                assert result.confidence is not None
                picture = Image.fromarray(result.confidence.cpu().numpy())
            else:
                picture = Image.fromarray(labels)
                picture.putpalette(self.predictor.palette.flatten().tolist())
            self._save(picture, output_path(target, ending), path)

    def _save(self, picture: Image.Image, output: Path, image: Path) -> None:
        def save(temporary: Path) -> None:
            kind = "JPEG" if output.suffix == ".jpg" else "PNG"
            picture.save(temporary, format=kind, quality=_JPEG_QUALITY)
            self.record.add(output, temporary, image)

        write_file(output, save)


def blend(image: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half image, half colors; both RGB uint8 (height, width, 3)."""
    return ((image.astype(np.uint16) + colors) // 2).astype(np.uint8)


def _blended(image: NDArray[np.uint8], palette: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The classes' colors over the image, some rows at a time."""
    result = np.empty_like(image)
    rows = max(_ROWS // image.shape[1], 1)
    for top in range(0, len(image), rows):
        some = slice(top, top + rows)
        result[some] = blend(image[some], palette[labels[some]])
    return result
