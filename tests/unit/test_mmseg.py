"""Checkpoints of the published system, under names that we write ourselves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from domainbridge.errors import ModelError
from domainbridge.models.mmseg import import_checkpoint
from domainbridge.models.mmseg_names import from_published
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter

STEM = {"conv1.0": "stem.0", "conv1.1": "stem.1", "conv1.3": "stem.3", "conv1.4": "stem.4", "conv1.6": "stem.6"}


def published(model: Segmenter, prefix: str = "") -> dict[str, Tensor]:
    """The model's weights under the authors' names."""
    renamed = {}
    for name, value in model.state_dict().items():
        if name.startswith("backbone.body."):
            rest = name.removeprefix("backbone.body.")
            for ours, theirs in {**STEM, "bn1": "stem.7"}.items():
                if rest.startswith(ours + ".") and not rest.startswith("layer"):
                    rest = theirs + rest.removeprefix(ours)
                    break
            renamed[f"{prefix}backbone.{rest}"] = value
        else:
            part, *rest = name.removeprefix("head.").split(".")
            if part == "classifier":
                key = ["conv_seg", *rest]
            elif part == "fuse":
                key = ["bottleneck", {"0": "conv", "1": "bn"}[rest[0]], *rest[1:]]
            else:
                key = ["aspp_modules", rest[0], {"0": "conv", "1": "bn"}[rest[1]], *rest[2:]]
            renamed[f"{prefix}decode_head.{'.'.join(key)}"] = value
    assert set(from_published({k.removeprefix(prefix): v for k, v in renamed.items()})) == set(model.state_dict())
    return renamed


@pytest.mark.parametrize("depth", [18, 50])
def test_depth_and_classes_follow_from_the_shapes(depth: int, tmp_path: Path) -> None:
    model = build_segmenter(ModelSpec(f"resnet{depth}_v1c", 8, 4)).eval()
    meta = {"CLASSES": ("soil", "crop", "weed", "stone")}
    torch.save({"meta": meta, "state_dict": published(model, "model.")}, tmp_path / "mine.pth")
    imported = import_checkpoint(tmp_path / "mine.pth", None, 8, (6, 12))
    assert imported.spec == ModelSpec(f"resnet{depth}_v1c", 8, 4)
    assert imported.space.classes == ("soil", "crop", "weed", "stone")
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(imported.model(image).logits, model(image).logits)


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "weight.pth"
    weights = published(build_segmenter(ModelSpec("resnet18_v1c", 8, 5)))
    for content, message in (
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "no student in it"),
        ({k: v for k, v in weights.items() if "stem" not in k}, "no ResNet v1c"),
        ({k: v for k, v in weights.items() if not k.endswith("layer2.1.bn2.bias")}, "layer2.1.bn2.bias: missing"),
        ({**weights, "decode_head.image_pool.1.conv.weight": torch.zeros(1)}, "its backbone or head has image_pool"),
    ):
        torch.save(content, path)
        with pytest.raises(ModelError, match=message):
            import_checkpoint(path, None, 8, (6, 12))
    torch.save(weights, path)
    with pytest.raises(ModelError, match=r"5 classes, but label space camvid11 has 11"):
        import_checkpoint(path, "camvid11", 8, (6, 12))
    with pytest.raises(ModelError, match="2 branches, but --dilations names 3"):
        import_checkpoint(path, None, 8, (6, 12, 18))


def test_numbers_of_numpy_in_the_meta_data_do_no_harm(tmp_path: Path) -> None:
    weights = published(build_segmenter(ModelSpec("resnet18_v1c", 8, 19)))
    meta = {"hook_msgs": {"best_score": np.float64(0.61), "steps": np.int64(3)}}
    torch.save({"meta": meta, "state_dict": weights}, tmp_path / "weight.pth")
    assert import_checkpoint(tmp_path / "weight.pth", None, 8, (6, 12)).space.name == "cityscapes19"


def test_no_code_is_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "sprung"),))  # type: ignore[return-value]

    torch.save({"state_dict": {}, "meta": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ModelError, match="cannot be read as weights") as caught:
        import_checkpoint(tmp_path / "trap.pth", None, 8, (6, 12))
    assert "weights_only" not in str(caught.value).partition(":")[2] or "False" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_tensors_that_are_not_what_they_claim(tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    weights = published(build_segmenter(ModelSpec("resnet18_v1c", 8, 5)))
    classifier = "decode_head.conv_seg.weight"
    for changes, message in (
        ({classifier: torch.zeros(1).expand(10**9, 256, 1, 1)}, "does not hold so many"),
        ({classifier: torch.tensor(1.0)}, r"expected \[classes, channels, 1, 1\] with 2 to 255 classes, found \[\]"),
        ({classifier: torch.zeros(300, 256, 1, 1)}, r"found \[300, 256, 1, 1\]"),
        ({classifier: torch.zeros(5, 256, 1, 1, dtype=torch.int8)}, "expected floating-point numbers"),
        ({7: torch.zeros(1)}, "found the name 7"),
    ):
        torch.save({**weights, **changes}, path)
        with pytest.raises(ModelError, match=message):
            import_checkpoint(path, None, 8, (6, 12))
    torch.save({"meta": {"CLASSES": 3}, "state_dict": weights}, path)
    with pytest.raises(ModelError, match="expected a list of names"):
        import_checkpoint(path, None, 8, (6, 12))
