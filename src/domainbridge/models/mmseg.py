"""The authors' checkpoints, and others of mmsegmentation with the same network, as models of ours."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from domainbridge.data.label_spaces import BUILT_IN, LabelSpace, label_space
from domainbridge.errors import ModelError, RecipeError
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.mmseg_names import from_published
from domainbridge.models.pretrained import load_checked, read_checkpoint
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter

__all__ = ["Imported", "import_checkpoint"]

_CLASSIFIER = "decode_head.conv_seg.weight"
_MOST_CLASSES = 255
_STUDENTS = ("stu_model.", "model.", "")
"""Where a checkpoint keeps the student: distillation, self-training, a bare network. Teachers lie beside it."""
_DEPTHS = {
    (False, 2, 2, 2, 2): 18,
    (False, 3, 4, 6, 3): 34,
    (True, 3, 4, 6, 3): 50,
    (True, 3, 4, 23, 3): 101,
    (True, 3, 8, 36, 3): 152,
}
_KNOWN = re.compile(
    r"^(backbone\.(stem\.[0-7]|layer[1-4]\.\d+)\.|decode_head\.(conv_seg\.|bottleneck\.(conv|bn)\.|"
    r"aspp_modules\.\d+\.(conv|bn)\.))"
)
_BLOCK = re.compile(r"^backbone\.layer(\d)\.(\d+)\.conv1\.weight$")


@dataclass(frozen=True)
class Imported:
    """A student out of a checkpoint.

    Attributes:
        model: the network.
        spec: its architecture, read off the shapes.
        space: its classes.
    """

    model: Segmenter
    spec: ModelSpec
    space: LabelSpace


def import_checkpoint(path: Path, space_name: str | None, output_stride: int, dilations: tuple[int, ...]) -> Imported:
    """Read the student of a checkpoint; depth, widths and classes follow from the shapes. No code is executed.

    Args:
        path: a .pth file: the student of either step, or a bare network; optimizer state and teachers are ignored.
        space_name: a built-in label space; None: cityscapes19 for 19 classes, else the names in the file.
        output_stride: 8 as published; it leaves no trace in the weights.
        dilations: of the head's branches; likewise.

    Raises:
        ModelError: unreadable, or of another architecture.
    """
    content, meta = read_checkpoint(path, hint="give the path of a .pth file")
    weights = _student_weights(content, path)
    foreign = sorted({key.split(".")[1] for key in weights if not _KNOWN.match(key)})
    if foreign:
        raise ModelError(
            f"{path}: not the published network: its backbone or head has {', '.join(foreign)}; only ResNet v1c with "
            "the two-branch DeepLab v2 head can be imported"
        )
    _check_tensors(weights, path)
    classes = weights[_CLASSIFIER].shape[0]
    branches = {key.split(".")[2] for key in weights if key.startswith("decode_head.aspp_modules.")}
    if len(branches) != len(dilations):
        raise ModelError(f"{path}: its head has {len(branches)} branches, but --dilations names {len(dilations)}")
    head = HeadSpec(channels=weights[_CLASSIFIER].shape[1], dilations=dilations)
    spec = ModelSpec(f"resnet{_depth(weights, path)}_v1c", output_stride, classes, head)
    model = build_segmenter(spec)
    load_checked(model, from_published(weights), str(path))
    return Imported(model.eval(), spec, _space(space_name, classes, meta, path))


def _student_weights(content: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    for prefix in _STUDENTS:
        if f"{prefix}{_CLASSIFIER}" in content:
            parts = (f"{prefix}backbone.", f"{prefix}decode_head.")
            return {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(parts)}
    examples = ", ".join(list(content)[:3])
    raise ModelError(
        f"{path}: no student in it: expected backbone.* and decode_head.*, alone or after 'model.' or 'stu_model.'; "
        f"found {len(content)} entries such as {examples}. Backbone weights alone go into the recipe's model.weights"
    )


def _check_tensors(weights: Mapping[str, Tensor], path: Path) -> None:
    """See that the tensors are what the file holds, before a network of their size is made."""
    for key, value in weights.items():
        held = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not held or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ModelError(f"{path}: {key}: claims {list(value.shape)} values, but the file does not hold so many")
        if not value.is_floating_point() and not key.endswith("num_batches_tracked"):
            raise ModelError(f"{path}: {key}: expected floating-point numbers, found {value.dtype}")
    shape = list(weights[_CLASSIFIER].shape)
    if len(shape) != 4 or not 2 <= shape[0] <= _MOST_CLASSES:
        raise ModelError(
            f"{path}: {_CLASSIFIER}: expected [classes, channels, 1, 1] with 2 to {_MOST_CLASSES} classes, "
            f"found {shape}"
        )


def _depth(weights: Mapping[str, Tensor], path: Path) -> int:
    blocks = [0, 0, 0, 0]
    for key in weights:
        if match := _BLOCK.match(key):
            blocks[int(match[1]) - 1] += 1
    shape = ("backbone.layer1.0.conv3.weight" in weights, *blocks)
    if shape not in _DEPTHS or "backbone.stem.0.weight" not in weights:
        raise ModelError(f"{path}: its backbone is no ResNet v1c (deep stem); its stages have {blocks} blocks")
    return _DEPTHS[shape]


def _space(name: str | None, classes: int, meta: Mapping[str, Any], path: Path) -> LabelSpace:
    try:
        if name is not None:
            space = label_space(name)
        elif classes == len(BUILT_IN["cityscapes19"]):
            space = BUILT_IN["cityscapes19"]
        else:
            names = meta.get("CLASSES") or [f"class {index}" for index in range(classes)]
            if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
                raise ModelError(f"{path}: meta.CLASSES: expected a list of names, found {names!r:.100}")
            space = label_space(path.stem, list(names))
    except RecipeError as error:
        raise ModelError(f"--label-space: {error}") from error
    if len(space) != classes:
        raise ModelError(
            f"{path}: {classes} classes, but label space {space.name} has {len(space)}; give --label-space"
        )
    return space
