"""Golden k: color jitter and blur of bridged images, at the recorded parameters."""

import golden_arrays as golden
import torch

from domainbridge.ops.photometric import (
    BlurDraws,
    JitterDraws,
    adjust_contrast_and_brightness,
    adjust_saturation_and_hue,
    blur,
    blur_kernel_size,
    jitter,
)

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1) / 255
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1) / 255


def scalar(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_single_adjustments(compare) -> None:
    arrays = golden.arrays("k_color_blur.npz")
    image = torch.from_numpy(arrays["op_in"])
    brighter = adjust_contrast_and_brightness(image, scalar(1.0), scalar(0.15))
    compare("k brightness", brighter, arrays["op_brightness_plus0.15"], 1e-6)
    stronger = adjust_contrast_and_brightness(image, scalar(1.2), scalar(0.0))
    compare("k contrast", stronger, arrays["op_contrast_1.2"], 1e-6)
    saturated = adjust_saturation_and_hue(image, scalar(0.8), scalar(0.0))
    compare("k saturation", saturated, arrays["op_saturation_0.8"], 1e-5)
    turned = adjust_saturation_and_hue(image, scalar(1.0), scalar(0.15))
    compare("k hue", turned, arrays["op_hue_0.15x2pi"], 1e-5)


def test_jitter_and_blur(compare) -> None:
    """All recorded seeds as one batch: each sample has its own factors, order and sigma."""
    arrays, drawn = golden.arrays("k_color_blur.npz"), golden.table("k_color_blur.json")["params"]
    normalized = torch.from_numpy(arrays["img"])
    batch = normalized.expand(len(drawn), -1, -1, -1)
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    draws = JitterDraws(
        torch.tensor([case["jitter_applied"] for case in drawn]),
        torch.tensor([[case["params"][name][0] for name in names] for case in drawn]),
        torch.tensor([case["params"]["order"] for case in drawn]),
    )
    jittered = (jitter(batch * STD + MEAN, draws) - MEAN) / STD
    sigmas = torch.tensor([case["blur_sigma"] for case in drawn])
    blurred = blur(batch, BlurDraws(torch.tensor([case["blur_applied"] for case in drawn]), sigmas), vertical=False)
    for row, case in enumerate(drawn):
        compare("k jitter", jittered[row], arrays[f"jitter_seed{case['seed']}"], 5e-5)
        compare("k blur", blurred[row], arrays[f"blur_seed{case['seed']}"], 1e-5)


def test_kernel_sizes(compare) -> None:
    for key, value in golden.table("k_color_blur.json").items():
        if key != "params":
            height = int(key.strip("()").split(",")[0])
            compare("k kernel sizes", [1, blur_kernel_size(height)], value["kernel_size_y_x"], 0)
