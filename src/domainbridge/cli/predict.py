"""``predict``."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import say

__all__ = ["predict"]


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="path to a folder with model.safetensors and config.json, USER/NAME on the hub, or a file that "
            "`export` wrote",
            metavar="MODEL",
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="images, videos and folders of both, of any size; patterns in quotes, such as 'photos/**/*.jpg'; text "
            "files that list any of these",
            metavar="INPUT...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="path to the folder of class maps (PNG, value = train id)")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="also write the image or video with the classes' colors")
    ] = False,
    colors: Annotated[bool, typer.Option("--colors", help="also write the classes' colors alone")] = False,
    legend: Annotated[bool, typer.Option("--legend", help="with --overlay: names of the classes below")] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="also write the largest probability, 0..255")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="also write those of all classes, 0..255, as .npz")
    ] = False,
    disagreement: Annotated[
        bool,
        typer.Option("--disagreement", help="also write where the models of the run's two paths disagree"),
    ] = False,
    polygons: Annotated[
        str | None, typer.Option(help="also write polygons: geojson, coco, labelme, or several with commas between")
    ] = None,
    min_area: Annotated[int, typer.Option(min=0, help="pixels of the smallest polygon")] = 64,
    tolerance: Annotated[float, typer.Option(min=0.0, help="pixels that an outline may be off")] = 1.0,
    shares: Annotated[bool, typer.Option("--shares", help="also write class-shares.csv, percent per class")] = False,
    ids: Annotated[
        str | None,
        typer.Option(
            help="values in the class maps in the place of train ids: cityscapes, gta5, synscapes, synthia, or "
            "VALUE=CLASS,... or path to a YAML file",
            metavar="IDS",
        ),
    ] = None,
    frames: Annotated[bool, typer.Option("--frames", help="of a video: write the class map of each frame")] = False,
    every: Annotated[int, typer.Option(min=1, help="of a video: take each frame of this number")] = 1,
    resize: Annotated[
        str | None,
        typer.Option(help="size at the network: WIDTHxHEIGHT, a factor such as 0.5, or none; default: as in training"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="leave out what the same command has written already")
    ] = False,
    bands: Annotated[
        str | None, typer.Option(help="bands of the images as red, green and blue, e.g. 4,3,2; default: as in training")
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="values that become black and white, e.g. 0,4095; default: as in training")
    ] = None,
    percentiles: Annotated[
        str | None,
        typer.Option(help="in percent of each image's pixels, in the place of --scale, e.g. 2,98"),
    ] = None,
    slide: Annotated[bool, typer.Option("--slide", help="sliding windows of 512x512")] = False,
    flip: Annotated[bool, typer.Option("--flip", help="average with the mirrored image")] = False,
    scales: Annotated[
        str,
        typer.Option(help="average over sizes of the image at the network: factors with commas between: 0.75,1,1.25"),
    ] = "1",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, or bfloat16 or float16 (autocast), faster on GPUs")
    ] = "float32",
) -> None:
    """Segment images and videos: writes OUT/NAME.png, and what the options ask for.

    Files that an earlier predict wrote are replaced; no other file is.
    """
    import os
    from dataclasses import replace

    from domainbridge.cli.parsing import parse_limits, parse_numbers, parse_resize, parse_scales, writable_folder
    from domainbridge.cli.tables import time_left
    from domainbridge.errors import RecipeError
    from domainbridge.evaluation.exported import ExportedPredictor
    from domainbridge.tools.open_model import open_model
    from domainbridge.tools.predict import predict_files
    from domainbridge.tools.predict_options import PredictOptions, class_ids, given_ids

    writable_folder(out, "--out")
    if scale is not None and percentiles is not None:
        raise RecipeError("--scale and --percentiles: give one of the two")
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        from domainbridge.runtime.torchrun import process_device

        device = process_device(device)
    factors = parse_scales(scales, "--scales")
    loaded = open_model(model, slide=slide, flip=flip, scales=factors, device=device, precision=precision)
    if not isinstance(loaded, ExportedPredictor):
        loaded.keep_memory()
    if bands is not None:
        loaded.image_rule = replace(loaded.image_rule, bands=parse_numbers(bands, "--bands"))
    if scale is not None:
        loaded.image_rule = replace(loaded.image_rule, scale=parse_limits(scale, "--scale"), percentiles=None)
    if percentiles is not None:
        limits = parse_limits(percentiles, "--percentiles", (0, 100))
        loaded.image_rule = replace(loaded.image_rule, percentiles=limits, scale=None)
    if resize is not None:
        loaded.resize = parse_resize(resize, "--resize")
    options = PredictOptions(
        overlay=overlay,
        colors=colors,
        legend=legend,
        confidence=confidence,
        probabilities=probabilities,
        disagreement=disagreement,
        polygons=() if polygons is None else tuple(name.strip() for name in polygons.split(",")),
        min_area=min_area,
        tolerance=tolerance,
        shares=shares,
        ids=None if ids is None else class_ids(given_ids(ids), loaded.classes),
        frames=frames,
        every=every,
    )
    with time_left("images", shown=rank == 0) as (progress, report):
        if disagreement or count > 1:  # only these need torch beside the model
            from domainbridge.api import predict_with as segment
        else:
            segment = predict_files
        written = segment(loaded, inputs, out, options, resume=resume, report=report, progress=progress)
    if rank == 0:
        say(f"{written} images segmented into {out}")
