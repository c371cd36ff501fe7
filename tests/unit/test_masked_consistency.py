"""Masked consistency against the formulas of its paper, as a method and as a path of DDB."""

import copy
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.errors import RecipeError
from domainbridge.methods.base import PrototypeStage, TrainingStage
from domainbridge.methods.masked_consistency import MaskedConsistency
from domainbridge.methods.self_training import SelfTraining
from domainbridge.models.segmenter import Segmentation
from domainbridge.ops.masking import block_mask
from domainbridge.run.graph import stage_graph
from domainbridge.run.results import read_results
from domainbridge.run.run import run_recipe
from domainbridge.types import Batch, Rows
from tiny_domain import RECIPE

CLASSES = 3


class Tiny(nn.Module):
    """Two convolutions and the network's mean color."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.features = nn.Conv2d(3, 5, 3, padding=1)
        self.classifier = nn.Conv2d(5, CLASSES, 1)

    def forward(self, image: torch.Tensor) -> Segmentation:
        features = self.features(image - self.mean).relu()
        return Segmentation(self.classifier(features), features)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 3, 12, 20, generator=generator)
    return Batch(images[0], torch.randint(0, CLASSES, (2, 12, 20), generator=generator), images[1])


def named_losses(objective: SelfTraining, seed: int) -> dict[str, torch.Tensor]:
    objective.before_step(0)
    losses = dict(objective.losses(batch(), torch.Generator().manual_seed(seed)))
    assert len(losses) == objective.num_losses
    return losses


def test_blocks_are_hidden_one_by_one() -> None:
    image = torch.zeros(3, 3, 21, 34)
    mask = block_mask(image, torch.Generator().manual_seed(4), block_size=8, ratio=0.6)
    draws = torch.rand(3, 3, 5, generator=torch.Generator().manual_seed(4))
    for sample, row, column in product(range(3), range(21), range(34)):
        assert mask[sample, row, column] == (draws[sample, row // 8, column // 8] > 0.6)
    part = block_mask(image[:1], torch.Generator().manual_seed(4), block_size=8, ratio=0.6, rows=Rows(1, 1, 3))
    assert torch.equal(part, mask[1:2])
    many = block_mask(torch.zeros(8, 3, 512, 512), torch.Generator().manual_seed(0), block_size=16, ratio=0.7)
    assert many.float().mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("mixing", ["class", "none"])
def test_the_masked_loss_is_that_of_the_paper(mixing: str) -> None:
    torch.manual_seed(1)
    student = Tiny()
    objective = MaskedConsistency(student, mixing, block_size=5, ratio=0.5, weight=0.7, confidence=0.4, ignore_top=2)
    losses = named_losses(objective, 9)
    generator, target = torch.Generator().manual_seed(9), batch().target_image
    if mixing == "class":  # DACS draws first, and its losses are not touched
        plain = SelfTraining(student, "class", confidence=0.4, ignore_top=2)
        plain.before_step(0)
        for name, expected in plain.losses(batch(), generator):
            torch.testing.assert_close(losses[name], expected, rtol=0, atol=0)
    else:
        assert set(losses) == {"source", "masked"}
    probability = student(target).logits.softmax(1)  # the teacher of step 0 is a copy of the student
    largest, pseudo = probability.max(1)
    quality = (largest >= 0.4).float().mean()
    assert 0 < quality < 1
    visible = (torch.rand(2, 3, 4, generator=generator) > 0.5).float()
    mask = F.interpolate(visible[:, None], scale_factor=5)[:, :, :12, :20]
    hidden = mask * (target - student.mean) + student.mean  # 0 after normalization
    loss = F.nll_loss(student(hidden).logits.log_softmax(1), pseudo, reduction="none")
    loss[:, :2] = 0  # ignore_top
    torch.testing.assert_close(losses["masked"], 0.7 * quality * loss.mean())


def test_the_default_paths_change_no_stage_and_a_third_one_joins_every_round() -> None:
    def fingerprints(**changes: object) -> dict[str, str]:
        recipe = parse_recipe({**copy.deepcopy(RECIPE), **changes})
        return {node.name: node.fingerprint for node in stage_graph(recipe, None)}

    default, three = fingerprints(), fingerprints(paths=["masked", "class", "cut"])
    assert fingerprints(paths=["class", "cut"], masked={"ratio": 0.1}) == default
    assert list(three)[:5] == ["source-only", "r1-cut", "r1-class", "r1-masked", "r1-prototypes"]
    assert {name for name in default if default[name] == three[name]} == {"source-only", "r1-cut", "r1-class"}
    changed = fingerprints(paths=["cut", "class", "masked"], masked={"ratio": 0.1})
    assert {name for name in three if changed[name] == three[name]} == {"source-only", "r1-cut", "r1-class"}
    specs = {spec.name: spec for spec in stages_of(parse_recipe({**RECIPE, "paths": ["masked"], "warm_start": True}))}
    masked, prototypes, distill = specs["r2-masked"], specs["r2-prototypes"], specs["r2-distill"]
    assert isinstance(masked, TrainingStage)
    assert (masked.init, masked.lr_factor, masked.student_passes) == ("r1-distill", 0.1, 3)
    assert isinstance(prototypes, PrototypeStage)
    assert prototypes.students == ("r2-masked",)
    assert isinstance(distill, TrainingStage)
    assert distill.teacher_passes == 1


def test_paths_are_checked() -> None:
    with pytest.raises(RecipeError, match="each path at most once, found cut, cut"):
        parse_recipe({**RECIPE, "paths": ["cut", "cut"]})
    with pytest.raises(RecipeError, match="paths"):
        parse_recipe({**RECIPE, "paths": []})


def test_source_only_is_a_method() -> None:
    shared = {key: value for key, value in RECIPE.items() if key != "prototypes"}
    recipe = parse_recipe({**shared, "method": "source-only", "adabn": True})
    nodes = stage_graph(recipe, None)
    assert [node.name for node in nodes] == ["source-only", "adabn"]
    beside = {node.name: node for node in stage_graph(parse_recipe({**shared, "method": "self-training"}), None)}
    assert nodes[0].training == beside["source-only"].training
    with pytest.raises(RecipeError, match="method source-only trains nothing else"):
        parse_recipe({**shared, "method": "source-only", "source_only": False})


@pytest.mark.parametrize("method", ["ddb", "masked-consistency", "source-only"])
def test_whole_runs(method: str, recipe_tree: dict, tmp_path: Path) -> None:
    """With three teachers, each with prototypes of its own; a student of masked images; no adaptation at all."""
    recipe_tree["training"] |= {"steps": 1}
    recipe_tree["evaluation"] = {"label_free": {"images": 0}}
    if method == "ddb":
        recipe_tree |= {"rounds": 1, "source_only": False, "paths": ["cut", "class", "masked"]}
        last, folder = "r1-distill", tmp_path / "run/r1-prototypes"
    else:
        del recipe_tree["prototypes"]
        last, folder = method, tmp_path / "run"
        recipe_tree |= {"method": method} | ({"masked": {"block_size": 8}} if method == "masked-consistency" else {})
    assert run_recipe(parse_recipe(recipe_tree), tmp_path / "run")
    results = read_results(tmp_path / "run")
    assert results.final == last
    assert results.stages[last].targets["fog"].images == 4
    if method == "ddb":
        assert len(list(folder.glob("*.safetensors"))) == 3
    assert (tmp_path / "run/model/config.json").exists()
