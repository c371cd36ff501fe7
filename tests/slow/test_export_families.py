"""Every head and several backbones of every family as ONNX and torch.export: of any size, or of one.

Sizes are no multiples of 32. About four minutes on a quiet core.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from domainbridge.export.graph import FreeSizeError, Traceable, trace, write_onnx
from domainbridge.models.backbones.base import FAMILIES
from domainbridge.models.heads.base import HEADS, HeadSpec
from domainbridge.models.segmenter import ModelSpec, build_segmenter

pytestmark = pytest.mark.slow

BACKBONES = {
    "test_efficientnet": 16,
    "test_resnet": 32,
    "resnet18_v1c": 8,
    "efficientnet_lite0": 32,
    "hrnet_w18_small": 32,
    "convnext_atto": 32,
    "mobilenetv3_small_050": 16,
    "regnetx_002": 32,
}
"""Name -> output stride."""
REFUSED = ("test_vit:16", "swin_tiny_patch4_window7_224:32")
"""Their padding is decided in Python for each size."""
ONE_SIZE = {
    "test_vit": (16, (100, 130)),
    "vit_small_patch14_reg4_dinov2": (16, (98, 130)),
    "eva02_tiny_patch14_224": (16, (112, 100)),
    "swin_tiny_patch4_window7_224": (32, (100, 130)),
    "pvt_v2_b0": (32, (90, 130)),
    "test_maxvit": (32, (200, 260)),
    "sam2_hiera_tiny": (32, (128, 96)),
    "convnext_atto": (32, (90, 130)),
}
"""Name -> output stride, (height, width)."""


def families() -> set[str]:
    """Families of which a backbone is exported or refused here."""
    special = [name for name in FAMILIES.names() if name != "timm"]
    names = [*BACKBONES, *(each.partition(":")[0] for each in REFUSED)]
    tested = {family for family in special for name in names if FAMILIES[family].matches(name)}
    return tested | {"timm"}


def test_all_families_are_here() -> None:
    assert families() == set(FAMILIES.names())


@pytest.mark.parametrize("backbone", REFUSED)
def test_what_cannot_be_traced_with_a_free_size_is_said(backbone: str) -> None:
    name, _, stride = backbone.partition(":")
    network = build_segmenter(ModelSpec(name, int(stride), 3, HeadSpec("linear"))).eval()
    with pytest.raises(FreeSizeError, match="which is no rule"):
        Traceable(network, "float32")


@pytest.mark.parametrize("backbone", ONE_SIZE)
def test_the_graph_of_one_size_gives_what_the_network_gives(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    stride, (height, width) = ONE_SIZE[backbone]
    network = build_segmenter(ModelSpec(backbone, stride, 3, HeadSpec("linear"))).eval()
    with torch.no_grad():
        network.head.classifier.weight.normal_(std=1)
    traceable = Traceable(network, "float32", (height, width))
    program, batch = trace(traceable)
    assert batch is None, "any number of images"
    write_onnx(program, tmp_path / "a.onnx", 18, traceable)
    session, module = onnxruntime.InferenceSession(tmp_path / "a.onnx"), program.module()
    resized = [node for node in onnx.load(tmp_path / "a.onnx").graph.node if node.op_type == "Resize"]
    assert not any("bicubic" in node.name for node in resized), "position embeddings are constants"
    for count in (1, 3):
        image = torch.rand(count, 3, height, width)
        with torch.inference_mode():
            expected, again = network(image).logits, module(image)
        assert torch.allclose(again, expected, rtol=1e-3, atol=1e-5)
        assert np.allclose(session.run(["logits"], {"image": image.numpy()})[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [*((name, "deeplabv3plus") for name in BACKBONES), *(("test_efficientnet", kind) for kind in HEADS.names())],
)
def test_the_graph_gives_what_the_network_gives(backbone: str, head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = HeadSpec(head, channels=16, dilations=(1, 2), skip_channels=8)
    network = build_segmenter(ModelSpec(backbone, BACKBONES[backbone], 3, spec)).eval()
    traceable = Traceable(network, "float32")
    program, _ = trace(traceable)
    write_onnx(program, tmp_path / "a.onnx", 18, traceable)
    session, module = onnxruntime.InferenceSession(tmp_path / "a.onnx"), program.module()
    for batch, height, width in ((1, 64, 96), (2, 93, 67), (3, 131, 101), (1, 70, 259)):
        image = torch.rand(batch, 3, max(height, traceable.smallest_side), max(width, traceable.smallest_side))
        with torch.inference_mode():
            expected, again = network(image).logits, module(image)
        assert torch.allclose(again, expected, rtol=1e-3, atol=1e-5)
        assert np.allclose(session.run(["logits"], {"image": image.numpy()})[0], expected, rtol=1e-3, atol=1e-4)
