"""Segmenting the user's own images, of any size."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from domainbridge.data.decode import read_image
from domainbridge.data.samples import IMAGE_SUFFIXES, index_images
from domainbridge.errors import DataError, problem_list
from domainbridge.predict.loading import load_predictor

__all__ = ["blend", "collect_inputs", "predict_files"]


def predict_files(
    model: Path,
    inputs: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    confidence: bool = False,
    slide: bool = False,
    flip: bool = False,
    device: str = "auto",
) -> int:
    """Write ``NAME.png`` (palette PNG, value = train id) per image, and what else is asked for.

    Args:
        model: folder.
        inputs: files and folders; a folder's inner structure is kept below ``out``.
        out: folder, created when missing.
        overlay: also ``NAME_overlay.jpg``, the classes' colours over the image.
        confidence: also ``NAME_confidence.png``, 255 * the largest probability.
        slide: sliding windows instead of the whole image.
        flip: average with the mirrored image.
        device: see the recipe's key.

    Returns:
        How many images were segmented.

    Raises:
        InputError: nothing was written if an input is missing or two would write the same file.
    """
    pairs = collect_inputs(inputs)
    predictor = load_predictor(model, slide=slide, flip=flip, device=device)
    palette = predictor.space.palette
    for path, name in pairs:
        image = read_image(path)
        probability, classes = predictor(image).max(0)
        labels = classes.cpu().numpy().astype(np.uint8)
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        painted = Image.fromarray(labels)
        painted.putpalette(palette.flatten().tolist())
        _save(painted, target.with_name(target.name + ".png"))
        if overlay:
            _save(Image.fromarray(blend(image, palette[labels])), target.with_name(target.name + "_overlay.jpg"))
        if confidence:
            grey = (255 * probability).round().byte().cpu().numpy()
            _save(Image.fromarray(grey), target.with_name(target.name + "_confidence.png"))
    return len(pairs)


def collect_inputs(inputs: Sequence[Path]) -> list[tuple[Path, str]]:
    """(image, output name without ending) for every file, and every image below every folder.

    Raises:
        DataError: lists all inputs that are missing, are no images, or would share an output.
    """
    problems: list[str] = []
    found: dict[str, Path] = {}
    for path, name in _expanded(inputs, problems):
        if name in found:
            problems.append(f"{found[name]} and {path} would both write {name}.png")
        found[name] = path
    if problems:
        raise DataError(problem_list("predict: nothing was written", problems))
    return [(path, name) for name, path in found.items()]


def blend(image: NDArray[np.uint8], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half image, half colours; both RGB uint8 (height, width, 3)."""
    return ((image.astype(np.uint16) + colors) // 2).astype(np.uint8)


def _expanded(inputs: Sequence[Path], problems: list[str]) -> Iterator[tuple[Path, str]]:
    for path in inputs:
        if path.is_dir():
            try:
                yield from ((image, name) for name, image in index_images(path, "predict").items())
            except DataError as error:
                problems.append(str(error))
        elif not path.is_file():
            problems.append(f"{path}: no such file or folder")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            problems.append(f"{path}: not an image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        else:
            yield path, path.stem


def _save(image: Image.Image, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp{path.suffix}")
    image.save(temporary, quality=92) if path.suffix == ".jpg" else image.save(temporary)
    temporary.replace(path)
