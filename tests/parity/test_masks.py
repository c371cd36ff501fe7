"""Golden b: mask = f(chosen classes), mask = f(rectangle), and the distribution of what is drawn."""

import golden_arrays as golden
import numpy as np
import torch

from domainbridge.ops.mixing import (
    class_masks,
    cut_masks,
    draw_class_scores,
    draw_rectangles,
    masks_of_classes,
)


def cases(prefix: str) -> list[dict]:
    return [case for case in golden.table("b_masks.json") if case["case"].startswith(prefix)]


def test_class_masks(compare) -> None:
    arrays = golden.arrays("b_class_mask.npz")
    for case in cases("class"):
        label = torch.from_numpy(arrays[f"{case['case']}_label"]).long()
        chosen = torch.zeros(1, 256, dtype=torch.bool)
        chosen[0, torch.from_numpy(arrays[f"{case['case']}_chosen"])] = True
        compare("b class masks", masks_of_classes(label, chosen), arrays[f"{case['case']}_mask"], 0)
        drawn = class_masks(label, draw_class_scores(1, torch.Generator()), ignore_as_class=True)
        values = label[drawn].unique()
        assert len(values) == len(case["chosen"])
        assert torch.equal(torch.isin(label, values), drawn), "whole classes are drawn"


def test_cut_masks(compare) -> None:
    arrays = golden.arrays("b_cut_mask.npz")
    for case in cases("cut"):
        rectangle = torch.tensor([case["rect"]])
        mask = cut_masks(rectangle, tuple(case["shape"]))
        assert int(mask.sum()) == int(arrays[f"{case['case']}_mask_sum"])
        if f"{case['case']}_mask" in arrays:
            compare("b cut masks", mask, arrays[f"{case['case']}_mask"], 0)


def test_rectangles_follow_the_published_formula(compare) -> None:
    """Feeding the published draws into our formula gives the published rectangles."""
    for case in cases("cut"):
        generator = np.random.RandomState(case["np_seed"])
        height, width = case["shape"]
        share = 0.4 ** generator.uniform()
        rows, columns = round(share * height), round(0.4 / share * width)
        top = round(generator.uniform() * (height - rows))
        left = round(generator.uniform() * (width - columns))
        theirs = case["rect"]
        compare("b rectangle formula", [top, left, top + rows, left + columns], theirs, 0)


def test_rectangle_distribution() -> None:
    drawn = draw_rectangles(4000, (64, 96), 0.4, torch.Generator().manual_seed(0)).double()
    height, width = drawn[:, 2] - drawn[:, 0], drawn[:, 3] - drawn[:, 1]
    assert ((height * width / (64 * 96) - 0.4).abs() < 0.02).all()
    exponent = (height / 64).log() / np.log(0.4)
    assert abs(exponent.mean() - 0.5) < 0.02
    assert abs(exponent.std() - 12**-0.5) < 0.02
    assert abs((drawn[:, 0] / (64 - height).clamp_min(1)).mean() - 0.5) < 0.03
    assert (drawn[:, 2] <= 64).all()
    assert (drawn[:, 3] <= 96).all()
