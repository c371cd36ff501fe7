"""Backbones of every kind: convolutional, windowed, channels last, plain ViTs; and the heads that use all maps."""

import copy
from pathlib import Path

import pytest
import timm
import torch
from benchmarks.backbones import NAMES, exercise
from torch import Tensor, nn

from domainbridge.build.networks import check_network
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.config.schema import Recipe
from domainbridge.errors import ModelError
from domainbridge.models.activation_checkpointing import blocks_of, checkpoint_blocks
from domainbridge.models.backbones.base import Backbone, build_backbone
from domainbridge.models.backbones.maps import at_stride
from domainbridge.models.backbones.plain_vit import PlainViT, plain_vit
from domainbridge.models.backbones.timm_features import extractor
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, build_segmenter
from domainbridge.tools.costs import costs_of
from tiny_domain import RECIPE

SMALL = {"embed_dim": 48, "depth": 8, "num_heads": 3, "dynamic_img_size": True}
VITS = {
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", 14, SMALL),
    "DINOv3": ("vit_small_patch16_dinov3", 16, SMALL),
    "EVA-02": ("eva02_tiny_patch14_224", 14, SMALL),
    "SigLIP": ("vit_base_patch16_siglip_224", 16, SMALL),
}


@pytest.mark.parametrize("each", ["test_vit:16", "test_mambaout:32"])
def test_kinds_of_backbones(each: str) -> None:
    name, _, stride = each.partition(":")
    exercise(name, int(stride))


class Windowed(nn.Module):
    """Takes multiples of a window only, up to a largest size; its map is at stride 4, without `trim` last cells."""

    def __init__(self, window: int, largest: int = 10_000, trim: int = 0) -> None:
        super().__init__()
        self.window, self.largest, self.trim = window, largest, trim
        self.embed = nn.Conv2d(3, 2, 4, 4)

    def forward(self, image: Tensor) -> list[Tensor]:
        assert all(side % self.window == 0 and side <= self.largest for side in image.shape[-2:]), "not a window's size"
        maps = self.embed(image)
        return [maps, maps[..., : maps.shape[-2] - self.trim, :]]


def test_images_are_padded_to_the_window_and_cropped_back() -> None:
    backbone = Backbone(Windowed(160), 2, 2, strides=(4, 4), any_grid=False).eval()
    image = torch.rand(1, 3, 96, 170)
    padded = torch.zeros(1, 3, 160, 320)
    padded[..., :96, :170] = image
    with torch.no_grad():
        fine, _ = backbone(image)
        assert torch.equal(fine, backbone.body(padded)[0][..., :24, :43])


@pytest.mark.parametrize("body", [Windowed(224, largest=224), Windowed(1, trim=1)], ids=["one size", "trimmed maps"])
def test_a_body_that_suits_no_size_is_refused(body: nn.Module) -> None:
    backbone = Backbone(body, 2, 2, strides=(4, 4), any_grid=False).eval()
    with pytest.raises(ModelError, match=r"takes no images of 300x225 pixels, even if they are padded"):
        backbone(torch.rand(1, 3, 225, 300))


@pytest.mark.slow
@pytest.mark.parametrize("each", NAMES)
def test_every_family(each: str) -> None:
    name, _, stride = each.partition(":")
    exercise(name, int(stride))


@pytest.mark.parametrize("head", ["linear", "upernet", "daformer"])
@pytest.mark.parametrize("each", ["test_vit:8", "test_mambaout:32"])
def test_heads(head: str, each: str) -> None:
    name, _, stride = each.partition(":")
    network = build_segmenter(ModelSpec(name, int(stride), 3, HeadSpec(head, 16, (1, 2)))).train()
    image = torch.rand(2, 3, 64, 96)
    logits, features = network(image)
    cell = {"linear": int(stride), "upernet": 4, "daformer": 8 if name == "test_vit" else 4}[head]
    assert logits.shape == (2, 3, 64 // cell, 96 // cell)
    assert features.shape == (2, 16, 64 // cell, 96 // cell)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_a_linear_head_is_linear() -> None:
    head = build_segmenter(ModelSpec("test_vit", 16, 3, HeadSpec("linear", 16))).eval().head
    one, two = torch.rand(2, 1, 64, 5, 7)

    def logits(maps: Tensor) -> Tensor:
        return head.classifier(head(maps, maps))

    middle = (logits(one) + logits(two)) / 2
    torch.testing.assert_close(logits((one + two) / 2), middle)


def test_three_dilations_do_not_have_to_divide_the_channels_of_an_embedding_head() -> None:
    model = {**RECIPE["model"], "head": {"kind": "daformer", "channels": 16, "dilations": [6, 12, 18]}}
    assert parse_recipe(copy.deepcopy(RECIPE) | {"model": model}).model.head.kind == "daformer"


@pytest.mark.parametrize("family", VITS)
@pytest.mark.parametrize("cells", [(4, 5), (3, 8)])
def test_maps_of_a_vit_are_those_of_timm(family: str, cells: tuple[int, int]) -> None:
    name, patch, sizes = VITS[family]
    torch.manual_seed(0)
    backbone = plain_vit(name, 16, **sizes).eval()
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **sizes).eval()
    image = torch.randn(2, 3, patch * cells[0], patch * cells[1])
    with torch.no_grad():
        theirs = model.forward_intermediates(image, indices=[1, 3, 5, 7], norm=True, intermediates_only=True)
        ours = backbone.body(image)
        whole = backbone(image, pyramid=True)
    assert [each.shape for each in ours] == [(2, 48, *cells)] * 4
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    if patch == 16:
        for one, other in zip(whole, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
        torch.testing.assert_close(backbone(image)[1], theirs[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("patch", "stride"), [(14, 16), (14, 4), (14, 8), (14, 32), (16, 4), (16, 8), (16, 32)])
@pytest.mark.parametrize("size", [(224, 112), (100, 33), (5, 7)])
def test_cells_stay_where_they_are(patch: int, stride: int, size: tuple[int, int]) -> None:
    """A map of the patches' own positions, in pixels: at another stride it tells that stride's positions."""
    rows, columns = (-(-side // patch) for side in size)
    heights = ((torch.arange(rows) + 0.5) * patch)[:, None].expand(rows, columns)
    moved = at_stride(heights[None, None].clone(), patch, stride, size)
    assert moved.shape[-2:] == (-(-size[0] // stride), -(-size[1] // stride))
    expected = ((torch.arange(moved.shape[-2]) + 0.5) * stride).clamp(0.5 * patch, (rows - 0.5) * patch)
    torch.testing.assert_close(moved[0, 0, :, 0], expected)


def test_an_image_that_does_not_fit_is_padded_with_the_mean_color() -> None:
    torch.manual_seed(0)
    backbone = plain_vit("vit_small_patch14_reg4_dinov2", 8, **SMALL).eval()
    image = torch.randn(1, 3, 33, 50)
    padded = torch.zeros(1, 3, 42, 56)
    padded[..., :33, :50] = image
    with torch.no_grad():
        part, whole = backbone(image), backbone(padded)
    for one, other in zip(part, whole, strict=True):
        height, width = one.shape[-2:]
        # The last cells may lie between a patch and nothing, where the padded image still has a patch.
        torch.testing.assert_close(one[..., : height - 1, : width - 1], other[..., : height - 1, : width - 1])


def test_a_windowed_transformer_of_any_size() -> None:
    backbone = extractor("swin_tiny_patch4_window7_224", 32, embed_dim=24, depths=(1, 1, 2, 1)).eval()
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 202, 301), pyramid=True)
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 51, 76), (48, 26, 38), (96, 13, 19), (192, 7, 10)]


def with_model(**model: object) -> Recipe:
    crop = {"width": 64, "height": 64}
    return parse_recipe(
        copy.deepcopy(RECIPE) | {"model": {**RECIPE["model"], "weights": "none", **model}, "crop": crop}
    )


def test_a_backbone_of_one_size_is_refused_before_a_run() -> None:
    recipe = with_model(backbone="beit_base_patch16_224", output_stride=16)
    message = r"beit_base_patch16_224 with head .* takes no images of 64x64 pixels .*doesn't match model"
    for check in (lambda: check_network(recipe, stages_of(recipe)), lambda: costs_of(recipe, recipe.training)):
        with pytest.raises(ModelError, match=message):
            check()


@pytest.mark.parametrize("backbone", ["test_vit", "pvt_v2_b0"])
def test_blocks_of_transformers_are_computed_again(backbone: str) -> None:
    stride = 16 if backbone == "test_vit" else 32
    torch.manual_seed(0)
    plain = build_segmenter(ModelSpec(backbone, stride, 3, HeadSpec(channels=8, dilations=(1,), dropout=0.0)))
    sparing = copy.deepcopy(plain)
    checkpoint_blocks(sparing.backbone)
    assert len(blocks_of(plain.backbone)) == {"test_vit": 6, "pvt_v2_b0": 8}[backbone]
    image = torch.rand(2, 3, 64, 64)
    for network in (plain, sparing):
        torch.manual_seed(1)
        network.train()(image).logits.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


def test_the_memory_of_a_vit_is_counted() -> None:
    recipe = with_model(backbone="test_vit", output_stride=16)
    whole = costs_of(recipe, recipe.training)
    sparing = costs_of(recipe, recipe.training.model_copy(update={"activation_checkpointing": True}))
    assert 0 < sparing.activations < whole.activations
    assert 0 < sparing.recomputed < whole.operations


def test_attention_keeps_no_scores() -> None:
    """Fused attention keeps queries, keys, values and sums; the meta device alone would keep tokens x tokens too."""
    small, large = (with_model(backbone="test_vit", output_stride=16) for _ in range(2))
    large = large.model_copy(update={"crop": large.crop.model_copy(update={"width": 512, "height": 512})})
    one, many = (costs_of(recipe, recipe.training) for recipe in (small, large))
    assert many.activations == pytest.approx(64 * one.activations, rel=0.1), "as many times as pixels"
    assert many.operations > 64 * one.operations, "scores are computed all the same"


def test_a_vit_in_a_model_folder_is_a_plain_one(tmp_path: Path) -> None:
    assert isinstance(build_backbone("test_vit", 8), PlainViT)
    shallow = {**SMALL, "depth": 3}
    with pytest.raises(ModelError, match="has 3 blocks; at least 4"):
        plain_vit("vit_small_patch16_dinov3", 16, **shallow)
