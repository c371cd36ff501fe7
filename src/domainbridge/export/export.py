"""``export``: a model folder as one file that other runtimes run, checked on real images before it is there."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.data.folder import FolderRule, Listing, list_folder
from domainbridge.errors import ExportError, ModelError, RecipeError
from domainbridge.evaluation.edge_padding import covered
from domainbridge.evaluation.exported import load_exported
from domainbridge.evaluation.exported_file import EXTRA_FILE, SUFFIXES, ExportedConfig
from domainbridge.evaluation.label_maps import read_label_map
from domainbridge.evaluation.labeled_files import LabeledFiles, folder_files, space_of_labels
from domainbridge.evaluation.predictor import Predictor, load_predictor
from domainbridge.evaluation.sessions import open_session
from domainbridge.export.check import CheckResult, check, least_equal
from domainbridge.export.graph import DEFAULT_OPSET, OPSETS, FreeSizeError, Traceable, trace, write_onnx
from domainbridge.export.images import chosen, suggested_size
from domainbridge.export.quantize import CALIBRATION_IMAGES, quantize
from domainbridge.files import write_file

__all__ = ["Exported", "export_model"]

FORMATS = tuple(SUFFIXES.values())
PRECISIONS = ("float32", "float16", "int8")
CHECKED_IMAGES = 20
"""Images on which the exported file is compared, where nothing is said."""

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class Exported:
    """An exported file that passed the check.

    Attributes:
        path: of the file.
        bytes: its size.
        check: the figures.
    """

    path: Path
    bytes: int
    check: CheckResult


def export_model(
    model: Path,
    out: Path,
    *,
    format: str = "onnx",  # noqa: A002 - the name of the command's option
    precision: str = "float32",
    opset: int = DEFAULT_OPSET,
    size: tuple[int, int] | None = None,
    images: Path | None = None,
    labels: Path | None = None,
    label_map: Mapping[Any, Any] | Path | str | None = None,
    label_space: str | None = None,
    split: Path | None = None,
    count: int = CHECKED_IMAGES,
    at_least: float | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a model folder as one file, for any image size or for one, and check the file on real images.

    Args:
        model: path to a model folder.
        out: path of the file, ending in .onnx or .pt2; an earlier export is replaced, no other file is.
        format: onnx, or torch for torch.export.
        precision: float32, float16 or int8; int8 is for ONNX and needs ``images`` of the target.
        opset: version of ONNX's operators.
        size: (height, width) of all images at the network, for networks that do not export for every size (most
            transformers): predicting with the file takes overlapping windows of larger images and pads smaller ones.
            None: any size.
        images: path to a folder of images for the check, and for the ranges of int8. None: images of the quickstart.
        labels: path to a folder of labels with the same relative names: for mIoU before and after.
        label_map: label values to classes, as for ``evaluate``; None: the labels hold train ids.
        label_space: label space of the labels; None: the model's.
        split: path to a text file of stems: which images.
        count: images of the check, spread evenly over the folder.
        at_least: percent of pixels that must have the same class; None: 99.9 for float32, 99 for float16, 90 for int8.
        report: gets a line for each remark.

    Raises:
        InputError: something is wrong with the arguments, the model or the images, or the network does not export
            for every size and ``size`` is None.
        ExportError: the exported file does not do what the model folder does; no file is written.
        StorageError: the file cannot be written.
    """
    _check_arguments(
        out, format, precision, opset, size, images, labels, both=label_map is not None and label_space is not None
    )
    predictor = load_predictor(model, device="cpu")
    theirs = images is not None
    if images is None:
        report("note: checked on images of the quickstart; --images DIR checks on yours")
        images = Path(str(files("domainbridge") / "quickstart/fog/images/val"))
    if labels is None:
        listed: LabeledFiles | Listing = list_folder(images, None, FolderRule(split)).checked("export: --images")
    else:
        mapping = read_label_map(label_map) if label_map is not None else None
        listed = folder_files(images, labels, split, space_of_labels(predictor, label_space), mapping)
    size = _on_grid(size, predictor.grid, report)
    some = chosen(predictor, listed, count, precision, size)
    with tempfile.TemporaryDirectory(prefix="domainbridge-export-") as folder:
        path = Path(folder) / out.name
        report(f"{model}: {format}, {precision}{'' if size is None else f', {size[1]}x{size[0]} pixels'}")
        try:
            _write(predictor, path, format, precision, opset, size, some.calibration)
        except FreeSizeError as error:
            raise ModelError(f"{error}. {_size_advice(predictor, some.images if theirs else [])}") from error
        exported = load_exported(path, device="cpu", threads=torch.get_num_threads())
        if exported.config.remark is not None:
            report(f"note: {exported.config.remark}")
        result = check(
            *(predictor, exported, some.images, some.labeled),
            at_least=least_equal(precision) if at_least is None else at_least,
        )
        if not result.passed:
            told = "\n".join(f"  {line}" for line in result.lines())
            raise ExportError(
                f"export: the exported file differs too much from the model folder; {out} is not written.\n{told}\n"
                f"{_advice(precision, size)}"
            )
        write_file(out, partial(shutil.copyfile, path))
    return Exported(out, out.stat().st_size, result)


def _on_grid(size: Size | None, grid: int, report: Callable[[str], None]) -> Size | None:
    """The size of the file for images of a size, which are continued until ``grid`` divides their sides."""
    if size is None or size == covered(size, grid):
        return size
    larger = covered(size, grid)
    report(
        f"note: --size {size[1]}x{size[0]}: the file is for {larger[1]}x{larger[0]}, whose sides the network's largest "
        f"stride ({grid}) divides; images of your size are continued to it, as with the model folder"
    )
    return larger


def _size_advice(predictor: Predictor, images: Sequence[Path]) -> str:
    """What to do where a network does not export for every size."""
    (height, width), which = suggested_size(predictor, images)
    return (
        "Give --size WIDTHxHEIGHT: the file takes images of this size alone, and predicting with the file takes "
        f"overlapping windows of larger images and pads smaller ones. --size {width}x{height} is {which}"
    )


def _advice(precision: str, size: Size | None) -> str:
    if precision == "float32":
        other = " for every size; --size WIDTHxHEIGHT exports the network for one size" if size is None else ""
        return f"This network does not export as it is{other}; please report the backbone and the head."
    return (
        f"Take a higher precision, or more and other --images (int8 reads {CALIBRATION_IMAGES} of them); --min-equal "
        "says how many pixels must be equal."
    )


def _check_arguments(
    out: Path,
    kind: str,
    precision: str,
    opset: int,
    size: Size | None,
    images: Path | None,
    labels: Path | None,
    *,
    both: bool,
) -> None:
    problems = []
    if kind not in FORMATS:
        problems.append(f"--format {kind}: expected one of {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        problems.append(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}")
    if kind in FORMATS and SUFFIXES.get(out.suffix.lower()) != kind:
        ending = next(suffix for suffix, name in SUFFIXES.items() if name == kind)
        problems.append(f"--out {out}: a file of --format {kind} ends in {ending}")
    if opset not in OPSETS:
        problems.append(f"--opset {opset}: expected {OPSETS.start} to {OPSETS.stop - 1}")
    if size is not None and (len(size) != 2 or not all(type(side) is int and side > 0 for side in size)):
        problems.append(f"size {size}: expected height and width in pixels")
    if precision == "int8" and kind == "torch":
        problems.append("--precision int8: with --format onnx only")
    if precision == "int8" and images is None:
        problems.append("--precision int8: give --images DIR, images of the target that the ranges are measured on")
    if both:
        problems.append("--label-map: takes the place of --label-space; give one of the two")
    if labels is not None and images is None:
        problems.append("--labels: give --images DIR with the same relative names")
    if out.exists() and SUFFIXES.get(out.suffix.lower()) == kind and not _is_ours(out):
        problems.append(f"--out {out}: exists, and `export` did not write it; choose another name or move the file")
    if problems:
        raise RecipeError("export: " + "; ".join(problems))


def _is_ours(path: Path) -> bool:
    try:
        open_session(path, "cpu")
    except ModelError:
        return False
    return True


def _write(
    predictor: Predictor,
    path: Path,
    kind: str,
    precision: str,
    opset: int,
    size: Size | None,
    calibration: Sequence[Pixels],
) -> None:
    """The file, with its description.

    Raises:
        FreeSizeError: the network does not export for every size.
        ModelError: the network does not export.
    """
    network = Traceable(predictor.network, precision, size)
    program, batch = trace(network)
    described = predictor.config
    red, green, blue = predictor.network.mean.flatten().tolist()
    config = ExportedConfig(
        *(described.label_space, described.classes, described.colors, described.resize, described.image),
        precision=precision,
        smallest_side=network.smallest_side,
        training_sizes=described.training_sizes,
        size=size,
        batch=batch,
        padding=(red, green, blue),
        grid=predictor.grid,
    )
    if kind == "torch":
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(config.to_properties())})
        return
    if precision == "int8":
        single = path.with_name("float32.onnx")
        write_onnx(program, single, opset, network)
        quantize(single, path, calibration)
    else:
        write_onnx(program, path, opset, network)
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, config.to_properties())
    graph.producer_name = "domainbridge"
    onnx.save(graph, path)
