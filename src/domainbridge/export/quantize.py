"""int8 by onnxruntime's static quantization: ranges of all activations, measured on images of the target."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainbridge.errors import ModelError
from domainbridge.evaluation.sessions import unit_batch

__all__ = ["CALIBRATION_IMAGES", "quantize"]

_QUANTIZED = ["Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "Relu", "Clip"]
_PRODUCTS = ["Conv", "Gemm", "MatMul"]
"""Of transformers: sums between their blocks have outliers, for which 256 values are few."""
CALIBRATION_IMAGES = 32
"""Images whose activations give the ranges."""

Pixels = NDArray[np.uint8]


class _Reader:
    """The images one by one, as onnxruntime asks for them."""

    def __init__(self, images: Sequence[Pixels]) -> None:
        self.images: Iterator[Pixels] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next image as the graph's input; None after the last one."""
        image = next(self.images, None)
        return None if image is None else {"image": unit_batch([image])}


def quantize(source: Path, path: Path, images: Sequence[Pixels]) -> None:
    """Write an int8 file: weights per channel, activations per tensor, in QDQ form (which TensorRT reads too).

    Convolutions and products are int8, and in convolutional networks what lies between. What stays float32 is the
    normalization and the last classifier, which cost little and decide the classes.

    Args:
        source: float32 ONNX file.
        path: of the int8 file.
        images: RGB, uint8 (height, width, 3), at the network's size.

    Raises:
        ModelError: onnxruntime cannot quantize the graph, or its tools are not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ModelError(f"export: int8 needs more packages: pip install 'domainbridge[export]' ({error})") from error
    prepared = path.with_name(f"{path.name}.prepared")
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's tools advise about parts of their own
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared)).graph
        attends = any(node.op_type == "Softmax" for node in graph.node)
        quantize_static(
            str(prepared),
            str(path),
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=_PRODUCTS if attends else _QUANTIZED,
            nodes_to_exclude=_kept_in_float32(graph),
            calibrate_method=CalibrationMethod.MinMax,
        )
    except Exception as error:  # of whatever kind: onnxruntime's tools raise what they run into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"export: onnxruntime cannot quantize this network to int8 ({reason})") from error
    finally:
        logging.getLogger().setLevel(level)
        prepared.unlink(missing_ok=True)


def _kept_in_float32(graph: Any) -> list[str]:
    """Names of the nodes before the first and from the last convolution on."""
    weighty = [number for number, node in enumerate(graph.node) if node.op_type in ("Conv", "MatMul", "Gemm")]
    first, last = (weighty[0], weighty[-1]) if weighty else (0, 0)
    return [node.name for number, node in enumerate(graph.node) if number < first or number >= last]
