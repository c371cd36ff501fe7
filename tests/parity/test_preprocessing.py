"""Golden l: resize, crop, flip, padding and photometric distortion of decoded images."""

import ast

import golden_arrays as golden
import numpy as np
import pytest

from domainbridge.data.transforms import (
    Distortion,
    ResizeRule,
    choose_crop,
    distort,
    pad_to,
    resize_image,
    resize_label,
)

RECORDED = golden.table("l_preprocess.json")
CASES = [entry for entry in RECORDED if "case" in entry]


def rule_of(text: str) -> ResizeRule:
    values = ast.literal_eval(text)
    width, height = values["img_scale"]
    return ResizeRule(width, height, True, values.get("min_size"))


def test_resized_sizes(compare) -> None:
    for entry in RECORDED[0]["resize_geometry"]:
        width, height = entry["in_wh"]
        compare("l sizes after resizing", rule_of(entry["kw"]).size_for(height, width), entry["out_hw"], 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_pipeline(case: dict, compare) -> None:
    arrays = {k[2:]: v for k, v in golden.arrays("l_preprocess.npz").items() if k.startswith(f"{case['case']}_")}
    image, label = arrays["in_img"][..., ::-1].copy(), arrays["in_lab"]
    size = rule_of(case["resize"]).size_for(*case["in_hw"])
    assert list(size) == case["resized_hw"]
    image, label = resize_image(image, size), resize_label(label, size, published=True)
    compare("l resized image (gray levels)", image[..., ::-1], arrays["resize_img"], 0)
    compare("l resized label", label, arrays["resize_lab"], 0)

    generator, crop = np.random.RandomState(case["np_seed"]), tuple(case["crop"])

    def draw() -> tuple[int, int]:
        y = generator.randint(0, max(size[0] - crop[0], 0) + 1)
        return y, generator.randint(0, max(size[1] - crop[1], 0) + 1)

    y, x = choose_crop(label, crop, case["cat_max_ratio"], 10, draw)
    image, label = image[y : y + crop[0], x : x + crop[1]], label[y : y + crop[0], x : x + crop[1]]
    compare("l crop", image[..., ::-1], arrays["crop_img"], 0)
    if case["flipped"]:
        image, label = image[:, ::-1], label[:, ::-1]
    compare("l flip", image[..., ::-1], arrays["flip_img"], 0)
    compare("l flip", label, arrays["flip_lab"], 0)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    normalized = (image / 255.0 - mean / 255) / (std / 255)
    compare("l normalized", normalized, arrays["norm_img"], 1e-5)
    compare("l padded label", pad_to(label, crop, 255), arrays["pad_lab"], 0)
    assert pad_to(image, crop, (124, 116, 104)).shape == tuple(arrays["pad_img_shape"])


@pytest.mark.parametrize("seed", range(4))
def test_distortion(seed: int, compare) -> None:
    arrays = golden.arrays("l_preprocess.npz")
    generator = np.random.RandomState(seed)
    brightness = generator.uniform(-32, 32) if generator.randint(2) else None
    contrast_first = bool(generator.randint(2))
    contrast = generator.uniform(0.5, 1.5) if contrast_first and generator.randint(2) else None
    saturation = generator.uniform(0.5, 1.5) if generator.randint(2) else None
    hue = generator.randint(-18, 18) if generator.randint(2) else None
    if not contrast_first and generator.randint(2):
        contrast = generator.uniform(0.5, 1.5)
    draws = Distortion(brightness, contrast, contrast_first, saturation, hue)
    distorted = distort(arrays["pmd_in"][..., ::-1].copy(), draws)
    compare("l distortion (gray levels)", distorted[..., ::-1], arrays[f"pmd_seed{seed}"], 0)
