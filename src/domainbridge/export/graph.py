"""A network as a graph: for torch.export and for ONNX, of any image size and batch."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from domainbridge.errors import ModelError
from domainbridge.export.pooling import SizeFreePooling
from domainbridge.models.backbones.traceable import traceable_padding
from domainbridge.models.segmenter import Segmenter

__all__ = ["DEFAULT_OPSET", "OPSETS", "Traceable", "trace", "write_onnx"]

OPSETS = range(18, 24)
"""Versions of ONNX's operators that the exporter of torch writes."""
DEFAULT_OPSET = 18
_LIMIT = 2**31
"""Bytes of the largest ONNX file: the limit of its container."""


class Traceable(nn.Module):
    """Image in, logits out: normalization, padding, backbone and head.

    Attributes:
        network: a copy of the segmenter, with padding that can be traced.
        smallest_side: pixels of the shortest side that the graph takes.
    """

    def __init__(self, network: Segmenter, precision: str) -> None:
        """``precision``: float32 or float16, of weights and activations; normalization and logits stay float32."""
        super().__init__()
        self.network = copy.deepcopy(network).eval().cpu().to(memory_format=torch.contiguous_format)
        padding = traceable_padding(self.network.backbone.body, self.network.backbone.map_strides)
        self.network.backbone.padding = padding
        self.smallest_side = padding.smallest_side
        self.in_half = precision == "float16"
        if self.in_half:
            self.network.backbone.half()
            self.network.head.half()

    def forward(self, image: Tensor) -> Tensor:
        """Float32 (batch, 3, height, width) in [0, 1] to logits, float32 (batch, classes, h, w)."""
        normalized = (image - self.network.mean) / self.network.std
        head = self.network.head
        maps = self.network.backbone(normalized.half() if self.in_half else normalized, pyramid=head.needs != "fine")
        features = head(*maps) if head.needs == "all" else head(maps[0], maps[-1])
        logits: Tensor = head.classifier(features)
        return logits.float()


def trace(network: Traceable) -> ExportedProgram:
    """The graph, with symbols in the place of batch, height and width.

    Raises:
        ModelError: the network cannot be traced with a symbolic size.
    """
    side = network.smallest_side
    example = torch.zeros(2, 3, 2 * side + 3, 3 * side - 5)
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=side), 3: Dim("width", min=side)}
    try:
        with _quiet(), torch.no_grad(), SizeFreePooling():
            return torch.export.export(
                network, (example,), dynamic_shapes=(sizes,), prefer_deferred_runtime_asserts_over_guards=True
            )
    except Exception as error:  # of whatever kind: torch names the line of the backbone
        raise ModelError(_advice(network, "traced by torch.export", error)) from error


def write_onnx(program: ExportedProgram, path: Path, opset: int, network: Traceable) -> None:
    """The graph as one ONNX file, with input ``image`` and output ``logits``.

    Raises:
        ModelError: an operation has no counterpart in ONNX, or the weights are too large for one file.
    """
    if (size := sum(weight.nbytes for weight in network.state_dict().values())) >= _LIMIT:
        raise ModelError(
            f"export: {size / 2**30:.1f} GiB of weights; an ONNX file holds 2 GiB. Take --precision float16"
        )
    try:
        with _quiet():
            torch.onnx.export(
                program,
                (),
                path,
                input_names=["image"],
                output_names=["logits"],
                opset_version=opset,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except ImportError as error:
        raise ModelError(f"export: ONNX needs more packages: pip install 'domainbridge[export]' ({error})") from error
    except Exception as error:  # of whatever kind: torch names the operation
        raise ModelError(_advice(network, "written as ONNX", error)) from error


def _advice(network: Traceable, what: str, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"export: this backbone or head ({type(network.network.backbone.body).__name__}, "
        f"{type(network.network.head).__name__}) cannot be {what} for every image size: {reason}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which are about its own parts."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
