"""A network as a graph: for torch.export and for ONNX, of any image size or of one."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from domainbridge.errors import ModelError
from domainbridge.export.functions import TracedFunctions
from domainbridge.models.backbones.plain_vit import PlainViT
from domainbridge.models.backbones.traceable import traceable_padding
from domainbridge.models.segmenter import Segmenter

__all__ = ["DEFAULT_OPSET", "OPSETS", "FreeSizeError", "Traceable", "trace", "write_onnx"]

OPSETS = range(18, 24)
"""Versions of ONNX's operators that the exporter of torch writes."""
DEFAULT_OPSET = 18
_LIMIT = 2**31
"""Bytes of the largest ONNX file: the limit of its container."""


class FreeSizeError(ModelError):
    """The network is no graph in which the size of an image is a symbol; for one size it may well be."""


class Traceable(nn.Module):
    """Image in, logits out: normalization, padding, backbone and head.

    Attributes:
        network: a copy of the segmenter, with padding that can be traced.
        size: (height, width) of all images; None: any.
        smallest_side: pixels of the shortest side that the graph takes, of those for any size.
    """

    def __init__(self, network: Segmenter, precision: str, size: tuple[int, int] | None = None) -> None:
        """A copy of a segmenter.

        Args:
            network: stays as it is.
            precision: float32 or float16, of weights and activations; normalization and logits stay float32.
            size: (height, width) of all images; None: any.

        Raises:
            FreeSizeError: the sizes that the backbone takes follow no rule.
            ModelError: the network does not take images of ``size``.
        """
        super().__init__()
        self.network = copy.deepcopy(network).eval().cpu().to(memory_format=torch.contiguous_format)
        self.size, self.smallest_side, self.in_half = size, 1, False
        if size is None:
            self._pad_any_size()
        else:
            self._see_once(size)
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

    def _pad_any_size(self) -> None:
        backbone = self.network.backbone
        try:
            backbone.padding = padding = traceable_padding(backbone.body, backbone.map_strides)
        except ModelError as error:
            raise FreeSizeError(_advice(self, "exported", error)) from error
        self.smallest_side = padding.smallest_side

    def _see_once(self, size: tuple[int, int]) -> None:
        """An image of the size: what the backbone tries or keeps for a size is a constant from now on."""
        backbone = self.network.backbone
        try:
            if isinstance(backbone, PlainViT):
                backbone.fix_size(size)
            with torch.no_grad():
                self(torch.zeros(1, 3, *size))
        except Exception as error:  # of whatever kind: backbones raise what they run into
            raise ModelError(_advice(self, "run", error)) from error


def trace(network: Traceable) -> tuple[ExportedProgram, int | None]:
    """The graph, and the images that it takes at once; None: any number.

    Batch, height and width are symbols; of a network for one size, the batch alone, where torch can.

    Raises:
        FreeSizeError: the network cannot be traced with a symbolic size.
        ModelError: the network cannot be traced for its one size.
    """
    batch = Dim("batch", min=1)
    try:
        if network.size is None:
            side = network.smallest_side
            example = torch.zeros(2, 3, 2 * side + 3, 3 * side - 5)
            sizes = {0: batch, 2: Dim("height", min=side), 3: Dim("width", min=side)}
            return _program(network, example, sizes), None
        with suppress(Exception):  # of whatever kind: one image at once is the other choice
            return _program(network, torch.zeros(2, 3, *network.size), {0: batch}), None
        return _program(network, torch.zeros(1, 3, *network.size), None), 1
    except Exception as error:  # of whatever kind: torch names the line of the backbone
        kind = FreeSizeError if network.size is None else ModelError
        raise kind(_advice(network, "traced by torch.export", error)) from error


def _program(network: Traceable, example: Tensor, symbols: dict[int, Any] | None) -> ExportedProgram:
    with _quiet(), torch.no_grad(), TracedFunctions():
        return torch.export.export(
            network, (example,), dynamic_shapes=(symbols,), prefer_deferred_runtime_asserts_over_guards=True
        )


def write_onnx(program: ExportedProgram, path: Path, opset: int, network: Traceable) -> None:
    """The graph as one ONNX file, with input ``image`` and output ``logits``.

    Raises:
        FreeSizeError: an operation has no counterpart in ONNX for every size.
        ModelError: it has none for the one size, or the weights are too large for one file.
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
        kind = FreeSizeError if network.size is None else ModelError
        raise kind(_advice(network, "written as ONNX", error)) from error


def _advice(network: Traceable, what: str, error: Exception) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    size = network.size
    which = "for every image size" if size is None else f"for images of height {size[0]} and width {size[1]}"
    return (
        f"export: this backbone or head ({type(network.network.backbone.body).__name__}, "
        f"{type(network.network.head).__name__}) cannot be {what} {which}: {reason}"
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
