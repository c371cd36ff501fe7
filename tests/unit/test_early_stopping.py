"""`training.early_stopping`: the score, the best weights, a stage that ends early, a killed one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from domainbridge.build.datasets import open_data
from domainbridge.build.networks import initial_student
from domainbridge.build.recipe import parse_recipe
from domainbridge.config.training import EarlyStoppingConfig
from domainbridge.evaluation.target_score import target_score
from domainbridge.run.early_stopping import EarlyStopping
from domainbridge.run.results import read_results
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import Runtime
from domainbridge.training.checkpoint import load_checkpoint
from interrupted import run_until_killed


def test_the_score_compares_two_predictions_beyond_chance(recipe_tree: dict[str, Any]) -> None:
    recipe = parse_recipe(recipe_tree)
    data, runtime = open_data(recipe), Runtime(torch.device("cpu"), 0)
    model = initial_student(recipe, "any").train()
    torch.nn.init.normal_(model.head.classifier.weight)  # so that several classes are predicted
    model.backbone.eval()  # as a frozen trunk is
    modes = [module.training for module in model.modules()]
    seen = target_score(model, data.targets, 3, "flip_kappa", runtime, recipe.seed)
    assert [module.training for module in model.modules()] == modes
    model.eval()
    pairs = []
    for index in (0, 3, 6):  # evenly spread over ten images
        image = torch.from_numpy(data.targets[0][index].image).permute(2, 0, 1)[None].float() / 255
        both = model(image).logits, model(image.flip(3)).logits.flip(3)
        pairs += [F.interpolate(each, (10, 12), mode="bilinear")[0].argmax(0).flatten() for each in both]
    one, other = torch.cat(pairs[::2]), torch.cat(pairs[1::2])
    observed = (one == other).double().mean()
    chance = sum((one == kind).double().mean() * (other == kind).double().mean() for kind in range(3))
    assert 0 < observed < 1
    assert seen == pytest.approx(float(100 * (observed - chance) / (1 - chance)))
    assert target_score(model, data.targets, 3, "jitter_kappa", runtime, recipe.seed) != seen
    model.train()(torch.rand(2, 3, 40, 48)).logits.sum().backward()  # nothing of the look is in the way of gradients
    torch.nn.init.zeros_(model.head.classifier.weight)
    assert target_score(model, data.targets, 3, "flip_kappa", runtime, recipe.seed) == 0, "one class everywhere"


def following(scores: list[float], **config: Any) -> EarlyStopping:
    """One look a step, whose weights tell the step."""
    student, values = torch.nn.Linear(1, 1, bias=False), iter(scores)
    early = EarlyStopping(
        EarlyStoppingConfig(every=1, **config), student, steps=len(scores) + 5, score=lambda: next(values)
    )
    for step in range(1, len(scores) + 1):
        torch.nn.init.constant_(student.weight, step)
        look = early.look(step)
        assert look is not None
        assert look.values == {early.config.score: scores[step - 1]}
        assert look.enough == (early.ended is not None)
    early.keep_best()
    assert student.weight.item() == early.kept
    return early


def test_the_best_weights_are_kept_and_patience_ends() -> None:
    early = following([50.0, 60.0, 55.0, 60.0], patience=2)
    assert (early.kept, early.ended) == (2, 4), "an equal score is no better one"
    assert following([50.0, 60.0, 55.0], patience=2).ended is None
    again = EarlyStopping(early.config, early.student, early.steps, early.score)
    assert again.ended is None
    again.load_state_dict(early.state_dict())
    assert (again.kept, again.ended) == (2, 4)
    assert "ended at step 4 of 9, kept the weights of step 2 (jitter_kappa 60.0)" in str(again)
    rare = EarlyStopping(EarlyStoppingConfig(every=4), early.student, 6, lambda: 1.0)
    assert [step for step in range(1, 7) if rare.look(step) is not None] == [4, 6], "the last step has a look"


@pytest.fixture
def tree(recipe_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stage of twelve steps whose best look is that after step 4."""

    def score(model: torch.nn.Module, *_: Any) -> float:
        passes = next(int(value) for name, value in model.named_buffers() if name.endswith("num_batches_tracked"))
        return 100.0 - abs(passes - 8)  # two passes a step

    monkeypatch.setattr("domainbridge.run.stage.target_score", score)
    left_out = ("prototypes", "source_only")
    tree = {key: value for key, value in recipe_tree.items() if key not in left_out} | {"method": "self-training"}
    tree["training"] = {**tree["training"], "steps": 12, "log_every": 1, "checkpoint_every": 2}
    return tree


EARLY = {"every": 2, "patience": 2, "images": 2}


def test_a_stage_ends_early_and_a_killed_one_likewise(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = {**tree, "training": {**tree["training"], "early_stopping": EARLY}}
    assert run_recipe(parse_recipe(stopped), tmp_path / "whole")
    told = json.loads((tmp_path / "whole/self-training/early_stopping.json").read_text())
    assert told == {
        "score": "jitter_kappa",
        "kept_step": 4,
        "scores": {"2": 96.0, "4": 100.0, "6": 96.0, "8": 92.0},
    }
    assert read_results(tmp_path / "whole").stages["self-training"].steps == 8
    whole = load_file(tmp_path / "whole/model/model.safetensors")

    run_until_killed(tree, tmp_path / "plain", "self-training", 5)
    state = load_checkpoint(tmp_path / "plain/self-training/state.pt")
    assert state.step == 4
    assert all(torch.equal(value, whole[name]) for name, value in state.student.items()), "the weights of step 4"

    run_until_killed(stopped, tmp_path / "killed", "self-training", 7)  # the best weights are in the checkpoint alone
    assert run_recipe(parse_recipe(stopped), tmp_path / "killed")
    again = load_file(tmp_path / "killed/model/model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())

    def full(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("domainbridge.run.stage.save_model", full)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(parse_recipe(stopped), tmp_path / "late")
    assert load_checkpoint(tmp_path / "late/self-training/state.pt").step == 8
    assert run_recipe(parse_recipe(stopped), tmp_path / "late"), "after the last look nothing is trained any more"
    late = load_file(tmp_path / "late/model/model.safetensors")
    assert all(torch.equal(value, late[name]) for name, value in whole.items())


def test_a_stage_without_target_images_takes_all_steps(tree: dict[str, Any], tmp_path: Path) -> None:
    tree |= {"method": "source-only"}
    tree["training"] |= {"early_stopping": EARLY, "steps": 4}
    assert run_recipe(parse_recipe(tree), tmp_path / "run")
    assert not (tmp_path / "run/source-only/early_stopping.json").exists()
