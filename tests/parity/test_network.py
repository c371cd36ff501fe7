"""Golden a: the network's stages, features and logits."""

import golden_arrays as golden
import pytest
import torch

from domainbridge.models.mmseg_names import from_published
from domainbridge.models.pretrained import load_checked
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.upsample import upsample


def stage_maps(network: Segmenter) -> list[torch.Tensor]:
    """Outputs of the four stages during one forward pass, which the caller has yet to make."""
    maps: list[torch.Tensor] = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        network.backbone.body[name].register_forward_hook(lambda _m, _i, output: maps.append(output))
    return maps


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_tiny_network(mode: str, compare) -> None:
    weights = {key: torch.from_numpy(value) for key, value in golden.arrays("a_tinyA_weights.npz").items()}
    for key, value in golden.published_weights("tinyA/").items():
        compare("a formula weights", value, weights[key], 0)
    network = golden.tiny_network(weights).train(mode == "train")
    image = torch.from_numpy(golden.arrays("a_tinyA_eval.npz")["x"])
    maps = stage_maps(network)
    logits, features = network(image)
    expected = golden.arrays(f"a_tinyA_{mode}.npz")
    for number, stage_map in enumerate(maps):
        compare(f"a tinyA {mode} stages", stage_map, expected[f"s{number}"], 1e-4)
    compare(f"a tinyA {mode} features", features, expected["feature"], 1e-4)
    compare(f"a tinyA {mode} logits", logits, expected["logits"], 1e-4)
    compare(f"a tinyA {mode} upsampled logits", upsample(logits, (64, 96)), expected["logits_up"], 1e-4)
    if mode == "eval":
        upsampled = upsample(logits, (64, 96))
        compare("a tinyA eval argmax", upsampled.argmax(1), expected["argmax"], 0)
        compare(
            "a tinyA eval features up",
            upsample(features, (64, 96))[:, :4],
            expected["feature_up_ch0_3"],
            1e-4,
        )
        doubled = upsample(upsampled, (128, 192)).softmax(1)[:1, :4]
        compare("a tinyA eval softmax at 2x", doubled, expected["softmax_2x_img0_cls0_3"], 1e-4)
    else:
        buffers = dict(network.named_buffers())
        for key, value in expected.items():
            if key.startswith("bn/"):
                ours = buffers[golden.our_name(key.removeprefix("bn/"))]
                compare("a tinyA train BatchNorm buffers", ours, value, 1e-4)


def test_full_network(compare) -> None:
    listed = golden.table("a_r101v1c_state_dict_names.json")
    network = build_segmenter(ModelSpec("resnet101_v1c", 8, 19))
    ours = network.state_dict()
    theirs = {name: torch.empty(shape, device="meta") for name, shape, _ in listed["entries"]}
    renamed = from_published(theirs)
    assert len(theirs) == listed["n"] == 656
    assert {key: value.shape for key, value in renamed.items()} == {key: v.shape for key, v in ours.items()}
    assert sum(p.numel() for p in network.parameters()) == listed["n_params"]

    weights = {name: golden.weight(name, tuple(shape), "r101v1c/") for name, shape, _ in listed["entries"]}
    load_checked(network, from_published(weights), "golden weights")
    network.eval()
    image = golden.image("a/r101/x", (1, 3, 128, 160))
    network.mean.zero_()
    network.std.fill_(1)
    maps = stage_maps(network)
    with torch.no_grad():
        logits, features = network(image)
    expected = golden.arrays("a_r101v1c_eval.npz")
    compare("a r101v1c logits", logits, expected["logits"], 1e-4)
    compare("a r101v1c upsampled logits", upsample(logits, (128, 160)), expected["logits_up"], 1e-4)
    compare("a r101v1c features", features[:, :32], expected["feature_ch0_31"], 1e-4)
    for number, stage_map in enumerate(maps):
        scale = max(1.0, float(expected[f"s{number}_stats"][3]))
        compare("a r101v1c stages", stage_map.flatten()[:256], expected[f"s{number}_head"], 1e-5 * scale)
