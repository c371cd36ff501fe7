"""Names of the authors' weights (mmsegmentation's) and ours; the tensors are the same."""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["backbone_name", "from_published", "head_name"]

# The stem is one Sequential there (conv, bn, relu, three times); timm keeps its last BatchNorm beside it.
_STEM = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}
_HEAD_LAYER = {"conv": "0", "bn": "1"}


def from_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole model's ``backbone.*`` and ``decode_head.*`` entries under our names; others are left out."""
    renamed = {}
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        if part == "backbone":
            renamed[f"backbone.body.{backbone_name(rest)}"] = tensor
        elif part == "decode_head":
            renamed[f"head.{head_name(rest)}"] = tensor
    return renamed


def backbone_name(name: str) -> str:
    """``stem.N.*`` becomes timm's name; the stages ``layerS.B.*`` are named alike."""
    if not name.startswith("stem."):
        return name
    _, position, entry = name.split(".")
    return f"{_STEM[position]}.{entry}"


def head_name(name: str) -> str:
    """``aspp_modules.I``, ``bottleneck`` and ``conv_seg`` become ``branches.I``, ``fuse`` and ``classifier``."""
    part, *rest = name.split(".")
    if part == "conv_seg":
        return ".".join(["classifier", *rest])
    if part == "bottleneck":
        return ".".join(["fuse", _HEAD_LAYER[rest[0]], *rest[1:]])
    assert part == "aspp_modules", name
    return ".".join(["branches", rest[0], _HEAD_LAYER[rest[1]], *rest[2:]])
