"""``serve``."""

from pathlib import Path
from typing import Annotated

import typer

from domainbridge.cli.terminal import say

__all__ = ["serve"]


def serve(
    model: Annotated[
        Path, typer.Argument(help="path to a model folder, or to a file that `export` wrote", metavar="MODEL")
    ],
    host: Annotated[str, typer.Option(help="address to listen at; 0.0.0.0: open to the network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen at; 0: a free one")] = 8000,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="largest body of a request, MiB")] = 20,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="largest image, millions of pixels")] = 25,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="limit for the body to arrive, and again for the result")
    ] = 30,
    queue: Annotated[int, typer.Option(min=1, help="requests at once; more get status 503")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option(help="of a model folder: float32, bfloat16 or float16")] = "float32",
) -> None:
    """Answer HTTP requests with segmented images: POST /predict; a page to drop an image on; GET /health."""
    from domainbridge.serve.server import serve_model

    serve_model(
        model,
        host=host,
        port=port,
        megabytes=max_megabytes,
        megapixels=max_megapixels,
        seconds=seconds,
        places=queue,
        device=device,
        precision=precision,
        report=say,
    )
