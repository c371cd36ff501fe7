"""Segmenting the user's own images, of any size."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.decode import read_image
from domainbridge.data.folder import FolderRule, list_folder
from domainbridge.data.walk import IMAGE_SUFFIXES
from domainbridge.errors import DataError, problem_list
from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.files import write_file

__all__ = ["blend", "collect_inputs", "predict_files"]

_JPEG_QUALITY = 92


def predict_files(
    model: Predictor | Path | str,
    inputs: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    confidence: bool = False,
) -> int:
    """Write ``NAME.png`` (palette PNG, value = train id) per image, and what else is asked for.

    Args:
        model: a loaded model, or the path to a model folder.
        inputs: files and folders; a folder's inner structure is kept below ``out``.
        out: folder, created when missing.
        overlay: also ``NAME_overlay.jpg``, the classes' colors over the image.
        confidence: also ``NAME_confidence.png``, 255 * the largest probability.

    Returns:
        How many images were segmented.

    Raises:
        InputError: nothing was written if an input is missing or an output would hit another or an input; images that
            cannot be read are left out and listed at the end.
    """
    endings = [".png", *(["_overlay.jpg"] if overlay else []), *(["_confidence.png"] if confidence else [])]
    pairs = collect_inputs(inputs, out, endings)
    predictor = model if isinstance(model, Predictor) else load_predictor(Path(model))
    unreadable: list[str] = []
    for path, target in pairs:
        try:
            image = read_image(path)
        except DataError as error:
            unreadable.append(str(error))
            continue
        probability, classes = predictor.predict_probabilities(image).max(0)
        labels = classes.cpu().numpy().astype(np.uint8)
        target.parent.mkdir(parents=True, exist_ok=True)
        painted = Image.fromarray(labels)
        painted.putpalette(predictor.space.palette.flatten().tolist())
        _save(painted, _output(target, ".png"))
        if overlay:
            blended = Image.fromarray(blend(image, predictor.space.palette[labels]))
            _save(blended, _output(target, "_overlay.jpg"))
        if confidence:
            gray = (255 * probability).round().byte().cpu().numpy()
            _save(Image.fromarray(gray), _output(target, "_confidence.png"))
    if unreadable:
        done = len(pairs) - len(unreadable)
        raise DataError(problem_list(f"predict: {done} images were segmented, {len(unreadable)} not", unreadable))
    return len(pairs)


def collect_inputs(inputs: Sequence[Path], out: Path, endings: Sequence[str]) -> list[tuple[Path, Path]]:
    """(image, output path without ending) for every file, and every image below every folder.

    Raises:
        DataError: lists all inputs that are missing or are no images, and all outputs that would be written twice or
            over an input.
    """
    problems: list[str] = []
    pairs = [(path, out / name) for path, name in _expanded(inputs, problems)]
    images = {path.resolve() for path, _ in pairs}
    writers: dict[Path, Path] = {}
    for path, target in pairs:
        for ending in endings:
            output = _output(target, ending).resolve()
            if output in images:
                problems.append(f"{path}: its result would overwrite the input {output}; choose another --out")
            elif output in writers:
                problems.append(f"{writers[output]} and {path} would both write {output}")
            writers[output] = path
    if problems:
        raise DataError(problem_list("predict: nothing was written", problems))
    return pairs


def _output(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def blend(image: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half image, half colors; both RGB uint8 (height, width, 3)."""
    return ((image.astype(np.uint16) + colors) // 2).astype(np.uint8)


def _expanded(inputs: Sequence[Path], problems: list[str]) -> Iterator[tuple[Path, str]]:
    for path in inputs:
        if path.is_dir():
            listing = list_folder(path, None, FolderRule())
            problems += listing.problems
            yield from ((image, image.relative_to(path).with_suffix("").as_posix()) for image in listing.images)
        elif not path.is_file():
            problems.append(f"{path}: no such file or folder")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.append(f"{path}: not an image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        else:
            yield path, path.stem


def _save(image: Image.Image, path: Path) -> None:
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    write_file(path, lambda temporary: image.save(temporary, format=kind, quality=_JPEG_QUALITY))
