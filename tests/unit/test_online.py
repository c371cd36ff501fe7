"""DDB in one stage: the losses against the readable formulas; resuming; the engine with several trained networks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from domainbridge.build.recipe import parse_recipe
from domainbridge.errors import RecipeError
from domainbridge.methods.base import TrainingStage, trained_objectives
from domainbridge.methods.distillation import prototype_weights, rectified_ensemble
from domainbridge.methods.online import OnlineDistillation
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.ops.losses import cross_entropy
from domainbridge.ops.upsample import upsample
from domainbridge.run.graph import stage_graph
from domainbridge.run.run import run_recipe
from domainbridge.tools.costs import costs_of
from domainbridge.training.optimizer import build_optimizer, one_optimizer
from interrupted import StopAtStep
from tiny_domain import RECIPE
from tiny_network import CHANNELS, CLASSES, batch, network


def objective(**changes: Any) -> OnlineDistillation:
    student = network()
    paths = {name: SelfTraining(copy.deepcopy(student), name, confidence=0.3) for name in ("cut", "class")}
    return OnlineDistillation(student, paths, **{"distill_after": 1, "min_pixels": 1, "max_count": 2, **changes})


def test_losses_prototypes_and_ensemble_are_those_of_the_two_steps() -> None:
    online = objective()
    frozen = {name: copy.deepcopy(path.teacher.model) for name, path in online.paths.items()}
    plain = {
        name: SelfTraining(copy.deepcopy(path.student), name, confidence=0.3) for name, path in online.paths.items()
    }
    student = copy.deepcopy(online.student)
    generator = torch.Generator().manual_seed(5)
    banks, logits, weights, expected = {}, [], [], {}
    for name, path in plain.items():
        path.before_step(0)
        for loss, value in path.losses(batch(), generator):
            expected[f"{name}_{loss}"] = value
        output = frozen[name](batch().target_image)
        large, features = upsample(output.logits, (32, 32)), upsample(output.features, (32, 32))
        predicted = large.argmax(1)
        vectors = torch.zeros(CLASSES, CHANNELS)
        for k in range(CLASSES):
            shown = [features[i, :, predicted[i] == k].mean(1) for i in range(2) if (predicted[i] == k).any()]
            vectors[k] = torch.stack(shown).mean(0) if shown else 0.0
        present = torch.tensor([float((predicted == k).any()) for k in range(CLASSES)])
        banks[name] = PrototypeBank(vectors, present)
        logits.append(large)
        weights.append(prototype_weights(features, banks[name]))
    label = rectified_ensemble(logits, weights).argmax(1)
    expected["source"] = cross_entropy(student(batch().source_image).logits, batch().source_label)
    expected["target"] = cross_entropy(student(batch().target_image).logits, label)

    online.before_step(0)
    silent = dict(objective().losses(batch(), torch.Generator().manual_seed(5)))
    assert silent["target"] == 0  # before distill_after
    online.distills = True
    losses = dict(online.losses(batch(), torch.Generator().manual_seed(5)))
    assert list(losses) == ["cut_source", "cut_bridged", "class_source", "class_bridged", "source", "target"]
    assert len(losses) == online.num_losses
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, msg=name)
    for name, bank in banks.items():
        torch.testing.assert_close(online.banks[name].vectors, bank.vectors, atol=1e-5, rtol=1e-4)
        assert torch.equal(online.banks[name].counts, bank.counts)
    first = online.banks["cut"]
    for path in online.parts:
        path.teacher.model.load_state_dict(path.teacher.student.state_dict())
    list(online.losses(batch(), torch.Generator().manual_seed(5)))
    assert online.banks["cut"].counts.max() == 2  # the cap is next
    assert first.counts.max() == 1


def test_the_optimizer_moves_every_network_that_trains() -> None:
    online = objective(distill_after=0)
    parts = trained_objectives(online)
    assert [part.student for part in parts] == [online.student, *(path.student for path in online.parts)]
    before = [copy.deepcopy(part.student.state_dict()) for part in parts]
    optimizer = one_optimizer([build_optimizer(part.student, 1e-3, 10.0, 0.01) for part in parts])
    assert [group["base_rate"] for group in optimizer.param_groups] == [1e-3, 1e-2] * 3
    online.before_step(0)
    for _, loss in online.losses(batch(), torch.Generator().manual_seed(5)):
        loss.backward()
    optimizer.step()
    for part, old in zip(parts, before, strict=True):
        for name in ("backbone", "head"):
            pairs = [(old[key], value) for key, value in part.student.state_dict().items() if key.startswith(name)]
            assert any(not torch.equal(one, other) for one, other in pairs)


def tree_of(root: str, **changes: object) -> dict[str, Any]:
    tree = {key: copy.deepcopy(value) for key, value in RECIPE.items() if key not in ("prototypes", "source_only")}
    tree["evaluation"] = {"label_free": {"images": 0}}
    return {
        **tree,
        "data_root": root,
        "method": "ddb-online",
        "online": {"distill_after": 1, "min_pixels": 1},
        **changes,
    }


def test_the_stage_as_a_value() -> None:
    recipe = parse_recipe(tree_of(".", paths=["cut", "class", "masked"], source_only=True, warm_start=True))
    node = stage_graph(recipe, None)[-1]
    stage = node.spec
    assert isinstance(stage, TrainingStage)
    assert node.training is not None
    assert (stage.students, stage.student_passes, stage.teacher_passes, stage.init) == (4, 9, 3, "source-only")
    costs = costs_of(recipe, node.training)
    assert costs.memory(stage) == (4 * 4 + 3) * costs.parameters * 4 + costs.activations
    changed = stage_graph(parse_recipe(tree_of(".", self_training={"confidence": 0.9})), None)[-1]
    assert changed.fingerprint != stage_graph(parse_recipe(tree_of(".")), None)[-1].fingerprint
    message = "ddb-online: 4 steps, but a part of its training begins after online.distill_after 4"
    with pytest.raises(RecipeError, match=message):
        parse_recipe(tree_of(".", online={"distill_after": 4}))


def test_a_resumed_run_has_the_weights_of_a_whole_one(generated_data: Path, tmp_path: Path) -> None:
    tree = tree_of(str(generated_data))
    tree["training"] |= {"activation_checkpointing": True}
    assert run_recipe(parse_recipe(tree), tmp_path / "whole")
    assert not run_recipe(parse_recipe(tree), tmp_path / "cut", [StopAtStep("ddb-online", 2)])
    assert (tmp_path / "cut/ddb-online/state.pt").exists()
    assert run_recipe(parse_recipe(tree), tmp_path / "cut")
    whole, cut = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
