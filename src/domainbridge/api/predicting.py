"""Segment images, videos and maps into files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from domainbridge.api.models import PathLike
from domainbridge.errors import RunFolderError
from domainbridge.evaluation.predictor import Predictor
from domainbridge.evaluation.segmentation_model import SegmentationModel
from domainbridge.models.model_folder import load_model as load_model_folder
from domainbridge.run.suggest import path_model_folders
from domainbridge.runtime.torchrun import joined_processes
from domainbridge.tools.open_model import open_model
from domainbridge.tools.predict import predict_files
from domainbridge.tools.predict_options import PredictOptions, class_ids, given_ids

__all__ = ["predict", "predict_with"]


def predict(
    model: SegmentationModel | PathLike,
    inputs: Iterable[PathLike] | PathLike,
    out: PathLike,
    *,
    overlay: bool = False,
    colors: bool = False,
    legend: bool = False,
    confidence: bool = False,
    probabilities: bool = False,
    disagreement: bool = False,
    polygons: Iterable[str] = (),
    min_area: int = 64,
    tolerance: float = 1.0,
    shares: bool = False,
    ids: str | Mapping[Any, Any] | None = None,
    frames: bool = False,
    every: int = 1,
    resume: bool = False,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> int:
    """Write a class map ``OUT/NAME.png`` (palette PNG, value = train id) for every image; the number of inputs.

    A georeferenced TIFF leads to georeferenced TIFFs, a video to a video (docs/predicting.md lists every output).
    Memory is bounded: an image of more than four megapixels at the network goes through overlapping windows, a video
    some frames at a time. A record in ``out`` lists what was written: later calls replace these files and no others.
    Below torchrun the processes share the inputs.

    Args:
        model: a loaded model or exported file, or the path to a model folder or to a file that ``export`` wrote.
        inputs: paths to images, videos, folders of both, patterns such as ``"photos/**/*.jpg"``, and text files that
            list any of these; a folder's inner structure is kept below ``out``.
        out: path to a folder, created when missing.
        overlay: also ``NAME_overlay.jpg``, the classes' colors over the image.
        colors: also ``NAME_colors.png``, the colors alone.
        legend: names of the classes below the overlay.
        confidence: also ``NAME_confidence.png``, 255 * the largest probability.
        probabilities: also ``NAME_probabilities.npz``, 255 * the probability of every class, uint8 (height, width,
            classes), and the names of the classes.
        disagreement: also ``NAME_disagreement.png``, 255 where the models of the run's two paths predict different
            classes; for the model of a run that has them.
        polygons: of ``geojson``, ``coco`` and ``labelme``.
        min_area: pixels of the smallest polygon.
        tolerance: pixels that a polygon's outline may be off.
        shares: also ``class-shares.csv``, percent of the pixels per input and class.
        ids: values in the class maps in the place of train ids: name of a data set (cityscapes, gta5, synscapes,
            synthia), or a label map, value to class name, as for :func:`evaluate`.
        frames: of a video, the class maps of its frames, in the folder ``NAME_frames``.
        every: of a video, take each frame of this number.
        resume: leave out inputs whose results are all there, made with the same model and options.
        report: gets a line for each remark: files left out, distinct names for images with one stem, images in windows.
        progress: called with (inputs done, of how many) of this process; a part of a large file counts as a part.

    Raises:
        InputError: nothing was written if an input is missing or a file that predict did not write would be replaced.
        SomeFilesError: files that cannot be read are listed at the end; all others were segmented.
        StorageError: a result cannot be written.
    """
    predictor = open_model(model) if isinstance(model, Path | str) else model
    paths = [Path(inputs)] if isinstance(inputs, Path | str) else [Path(path) for path in inputs]
    options = PredictOptions(
        overlay=overlay,
        colors=colors,
        legend=legend,
        confidence=confidence,
        probabilities=probabilities,
        disagreement=disagreement,
        polygons=tuple(polygons),
        min_area=min_area,
        tolerance=tolerance,
        shares=shares,
        ids=None if ids is None else class_ids(given_ids(ids), predictor.classes),
        frames=frames,
        every=every,
    )
    return predict_with(predictor, paths, Path(out), options, resume=resume, report=report, progress=progress)


def predict_with(
    model: SegmentationModel,
    inputs: Sequence[Path],
    out: Path,
    options: PredictOptions,
    *,
    resume: bool = False,
    report: Callable[[str], None] = lambda _: None,
    progress: Callable[[float, int], None] = lambda done, total: None,
) -> int:
    """The same with options as one value; see :func:`predict`."""
    both = _path_models(model) if options.disagreement else []
    with joined_processes("cpu") as processes:
        return predict_files(
            *(model, inputs, out, options),
            paths=both,
            resume=resume,
            processes=processes,
            report=report,
            progress=progress,
        )


def _path_models(predictor: SegmentationModel) -> list[Predictor]:
    """The models of the two paths, which see images as the predictor does.

    Raises:
        RunFolderError: the model belongs to no run with two paths.
    """
    if not isinstance(predictor, Predictor) or predictor.folder is None:
        raise RunFolderError("disagreement: load the model from its folder in a run; RUN/model")
    models = []
    for folder in path_model_folders(predictor.folder):
        network, config = load_model_folder(folder)
        network = network.to(predictor.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        models.append(Predictor(network, config, predictor.rule))
        models[-1].resize, models[-1].image_rule = predictor.resize, predictor.image_rule
    return models
