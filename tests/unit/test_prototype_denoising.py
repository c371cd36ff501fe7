"""Pseudo-labels that prototypes correct: against the readable formulas, as a stage, and resumed."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from domainbridge.build.recipe import parse_recipe
from domainbridge.methods.distillation import prototype_weights, rectified_ensemble
from domainbridge.methods.prototype_denoising import PrototypeDenoising
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.ops.upsample import upsample
from domainbridge.run.graph import stage_graph
from domainbridge.run.run import run_recipe
from interrupted import StopAtStep
from tiny_domain import RECIPE
from tiny_network import CHANNELS, CLASSES, batch, network


def losses_of(objective: SelfTraining) -> dict[str, torch.Tensor]:
    return dict(objective.losses(batch(), torch.Generator().manual_seed(5)))


def test_the_first_step_has_no_prototypes_and_is_plain_self_training() -> None:
    denoising = PrototypeDenoising(network(), "class", confidence=0.3, min_pixels=1)
    plain = SelfTraining(network(), "class", confidence=0.3)
    torch.testing.assert_close(losses_of(denoising), losses_of(plain), rtol=0, atol=0)
    assert denoising.metrics["corrected_share"] == 0
    assert denoising.bank.counts.max() == 1


def test_later_pseudo_labels_are_those_of_the_formula() -> None:
    denoising = PrototypeDenoising(network(), "class", confidence=0.3, min_pixels=1, max_count=2)
    image = batch().target_image
    output = copy.deepcopy(denoising.teacher.model)(image)
    logits, features = upsample(output.logits, (32, 32)), upsample(output.features, (32, 32))
    # Prototypes close to the features, and far from those of their own class: some labels change, some stay.
    pixels = features.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    bank = PrototypeBank(pixels[[0, 700, 1500]].detach() * 1.5, torch.ones(CLASSES))
    expected = rectified_ensemble([logits], [prototype_weights(features, bank)]).argmax(1)
    denoising.bank = bank
    pseudo = denoising.pseudo_label(image)
    assert torch.equal(pseudo.label, expected)
    plain = logits.argmax(1)
    assert denoising.corrected == (expected != plain).float().mean()
    assert 0 < denoising.corrected < 1
    assert pseudo.share == (logits.softmax(1).amax(1) >= 0.3).float().mean()
    shown = [k for k in range(CLASSES) if (plain == k).any()]
    for k in shown:  # the bank moves with the teacher's own classes, not with the corrected ones
        means = [features[i, :, plain[i] == k].mean(1) for i in range(2) if (plain[i] == k).any()]
        moved = (bank.vectors[k] + torch.stack(means).mean(0)) / 2
        torch.testing.assert_close(denoising.bank.vectors[k], moved, atol=1e-5, rtol=1e-4)


def test_a_class_without_a_prototype_is_no_pseudo_label() -> None:
    denoising = PrototypeDenoising(network(), "class")
    vectors = torch.zeros(CLASSES, CHANNELS)
    denoising.bank = PrototypeBank(vectors, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.all(denoising.pseudo_label(batch().target_image).label == 1)


def tree_of(root: str, **changes: object) -> dict[str, Any]:
    tree = {key: copy.deepcopy(value) for key, value in RECIPE.items() if key not in ("prototypes", "source_only")}
    tree["evaluation"] = {"label_free": {"images": 0}}
    return {**tree, "data_root": root, "method": "prototype-denoising", "denoising": {"min_pixels": 1}, **changes}


def test_the_keys_are_part_of_the_stage() -> None:
    def fingerprint(**changes: object) -> str:
        return stage_graph(parse_recipe(tree_of(".", **changes)), None)[-1].fingerprint

    changes = ({}, {"mixing": "cut"}, {"denoising": {"max_count": 7}}, {"self_training": {"confidence": 0.9}})
    assert len({fingerprint(**change) for change in changes}) == len(changes)


def test_a_resumed_run_has_the_weights_of_a_whole_one(generated_data: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(tree_of(str(generated_data)))
    assert run_recipe(recipe, tmp_path / "whole")
    assert not run_recipe(recipe, tmp_path / "cut", [StopAtStep("prototype-denoising", 2)])
    assert (tmp_path / "cut/prototype-denoising/state.pt").exists()
    assert run_recipe(recipe, tmp_path / "cut")
    whole, cut = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
