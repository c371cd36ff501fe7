"""An exported file that needs no network: the class of a pixel is its brightest channel."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from domainbridge.data.label_spaces import label_space
from domainbridge.evaluation.exported_file import ExportedConfig


def write_tiny_onnx(path: Path, size: tuple[int, int] | None = None) -> None:
    """``size``: (height, width) of all images; None: any."""
    space = label_space("rgb", ["red", "green", "blue"])
    weight = numpy_helper.from_array(30 * np.eye(3, dtype=np.float32)[..., None, None], "weight")
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, *sides])
        for name, sides in (("image", size or ("height", "width")), ("logits", size or ("h", "w")))
    )
    convolution = helper.make_node("Conv", ["image", "weight"], ["logits"])
    graph = helper.make_graph([convolution], "tiny", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    config = ExportedConfig(space.name, space.classes, space.colors, None, size=size)
    helper.set_model_props(model, config.to_properties())
    onnx.save(model, path)
