"""``export``."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import echo, say

__all__ = ["export"]


def export(
    model: Annotated[
        Path, typer.Argument(help="path to a folder with model.safetensors and config.json", metavar="MODEL")
    ],
    format: Annotated[  # noqa: A002 - the name of the option
        str, typer.Option(help="onnx, or torch for torch.export")
    ],
    out: Annotated[Path, typer.Option(help="path of the file: .onnx, for --format torch .pt2")],
    precision: Annotated[
        str, typer.Option(help="float32, float16, or int8 by static quantization on --images (ONNX)")
    ] = "float32",
    opset: Annotated[int, typer.Option(help="version of ONNX's operators")] = 18,
    size: Annotated[
        str | None,
        typer.Option(
            help="one size for all images at the network, for what does not export for every size (most transformers): "
            "WIDTHxHEIGHT such as 1024x512; default: any size",
            metavar="WIDTHxHEIGHT",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="path to a folder of images for the check and for int8; default: images of the quickstart"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="path to a folder of labels at the images' relative names: mIoU before and after"),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(help="what label values mean, as for `evaluate`; default: train ids", metavar="MAP"),
    ] = None,
    label_space: Annotated[str | None, typer.Option(help="label space of the labels; default: the model's")] = None,
    split: Annotated[Path | None, typer.Option(help="path to a text file with a stem per line: which images")] = None,
    count: Annotated[int, typer.Option(min=1, help="images of the check, spread over the folder")] = 20,
    min_equal: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="percent of pixels with an equal class; default: 99.9 float32, 99 float16, 90 int8"
        ),
    ] = None,
) -> None:
    """Write a model folder as one file for other runtimes, if a check on real images finds the file as good.

    The check prints the largest difference, equal pixels, mIoU and speed. A file that fails is not written.
    """
    from domainbridge.cli.parsing import parse_size, writable
    from domainbridge.export.export import export_model

    writable(out, "--out")
    width_height = None if size is None else parse_size(size, "--size")
    done = export_model(
        model,
        out,
        format=format,
        precision=precision,
        opset=opset,
        size=width_height and width_height[::-1],
        images=images,
        labels=labels,
        label_map=label_map,
        label_space=label_space,
        split=split,
        count=count,
        at_least=min_equal,
        report=say,
    )
    for line in done.check.lines():
        echo(line)
    say(f"{done.path}: {done.bytes / 1e6:.1f} MB")
