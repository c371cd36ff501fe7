"""Keys that save memory or time: float16 with scaled losses, activation checkpointing, compiled networks."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from domainbridge.build.networks import build_objective, check_network
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.errors import ModelError, RecipeError, TrainingError
from domainbridge.methods.base import TrainingStage
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.activation_checkpointing import blocks_of, checkpoint_blocks
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.run.graph import stage_graph
from domainbridge.runtime.device import resolve_runtime
from domainbridge.training.amp import LossScale, loss_scale
from domainbridge.training.loop import TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer
from domainbridge.types import Batch
from tiny_domain import RECIPE

CPU = torch.device("cpu")


def network(backbone: str = "test_efficientnet") -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter(ModelSpec(backbone, 16, 3, HeadSpec(channels=16, dilations=(1, 2)))).train()


def trained(student: Segmenter, scale: LossScale | None, steps: int = 3, precision: str = "float32") -> Segmenter:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 3, (2, 32, 32), generator=generator, dtype=torch.uint8)
    assert fit(
        SourceOnly(student),
        build_optimizer(student, 1e-3, 10, 0.01),
        iter([Batch(image, label, image)] * steps),
        TrainConfig("s", 0, 0, Schedule(steps), precision),
        resolve_runtime("cpu"),
        report=lambda progress: None,
        checkpoint=lambda step: None,
        scale=scale,
    )
    return student


class TestLossScale:
    def test_overflow_halves_it_and_patience_doubles_it(self) -> None:
        scale = LossScale(CPU)
        first = scale.value.item()
        assert scale.update(torch.tensor(torch.inf)) == 1
        assert scale.value == first / 2
        for _ in range(2000):
            assert scale.update(torch.tensor(3.0)) == 0
        assert scale.value == first

    def test_a_restart_counts_on(self) -> None:
        scale, other = LossScale(CPU), LossScale(CPU)
        for norm in (torch.nan, 1.0, 2.0):
            scale.update(torch.tensor(norm))
        other.load_state_dict(scale.state_dict())
        assert (other.value, other.steady) == (scale.value, 2)

    def test_no_scale_for_other_precisions(self) -> None:
        assert loss_scale("bfloat16", CPU) is None
        assert isinstance(loss_scale("float16", CPU), LossScale)

    def test_a_step_that_overflows_is_left_out_and_training_goes_on(self) -> None:
        student = network()
        before = student.head.classifier.weight.detach().clone()
        overflowing = iter([True, False, False])

        def overflow(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * torch.inf if next(overflowing) else gradient

        student.head.classifier.weight.register_hook(overflow)
        scale = LossScale(CPU)
        first = scale.value.item()
        trained(student, scale, precision="float16")
        assert scale.value == first / 2
        assert student.head.classifier.weight.isfinite().all()
        assert not torch.equal(student.head.classifier.weight, before)

    def test_gradients_that_overflow_at_any_scale_stop_the_run(self) -> None:
        student = network()
        before = student.head.classifier.weight.detach().clone()
        student.head.classifier.weight.register_hook(lambda gradient: gradient * torch.nan)
        with pytest.raises(TrainingError, match="try bfloat16 or float32"):
            trained(student, LossScale(CPU), steps=40, precision="float16")
        assert torch.equal(student.head.classifier.weight, before)

    def test_near_float32(self) -> None:
        one, other = trained(network(), None), trained(network(), LossScale(CPU), precision="float16")
        norms = [nn.utils.parameters_to_vector(model.parameters()).norm().item() for model in (one, other)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-2)
        assert not torch.equal(one.head.classifier.weight, other.head.classifier.weight)


class TestActivationCheckpointing:
    @pytest.mark.parametrize("backbone", ["resnet18_v1c", "test_efficientnet"])
    def test_weights_and_statistics_end_the_same(self, backbone: str) -> None:
        plain, sparing = network(backbone), network(backbone)
        checkpoint_blocks(sparing.backbone)
        trained(plain, None)
        trained(sparing, None)
        expected = plain.state_dict()
        assert list(sparing.state_dict()) == list(expected)
        assert all(torch.equal(value, expected[name]) for name, value in sparing.state_dict().items())

    def test_blocks_keep_only_their_inputs(self) -> None:
        def kept(student: Segmenter) -> int:
            sizes: list[int] = []

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                sizes.append(tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                student(torch.rand(2, 3, 64, 64))
            return sum(sizes)

        sparing = network("resnet18_v1c")
        checkpoint_blocks(sparing.backbone)
        assert kept(sparing) < kept(network("resnet18_v1c")) / 1.5

    def test_resnets_blocks(self) -> None:
        assert [type(block).__name__ for block in blocks_of(network("resnet18_v1c").backbone)] == ["BasicBlock"] * 8

    def test_a_backbone_without_blocks_is_refused_before_training(self) -> None:
        tree = copy.deepcopy(RECIPE) | {"training": RECIPE["training"] | {"activation_checkpointing": True}}
        tree["model"] = tree["model"] | {"backbone": "regnety_002", "output_stride": 32}
        recipe = parse_recipe(tree)
        with pytest.raises(ModelError, match="no residual blocks"):
            check_network(recipe, stages_of(recipe))

    def test_it_is_not_compiled(self) -> None:
        tree = copy.deepcopy(RECIPE) | {
            "stages": {"r1-cut": {"activation_checkpointing": True}},
            "runtime": {"compile": True},
        }
        with pytest.raises(RecipeError, match=r"runtime\.compile and training\.activation_checkpointing"):
            parse_recipe(tree)

    def test_the_key_reruns_nothing(self) -> None:
        tree = copy.deepcopy(RECIPE) | {"training": RECIPE["training"] | {"activation_checkpointing": True}}
        graphs = [stage_graph(parse_recipe(recipe), None) for recipe in (RECIPE, tree)]
        assert [node.fingerprint for node in graphs[0]] == [node.fingerprint for node in graphs[1]]


class NoInputs:
    """For a stage that reads nothing of earlier ones."""

    def mean_over_devices(self, value: torch.Tensor) -> torch.Tensor:
        return value


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    recipe = parse_recipe(copy.deepcopy(RECIPE) | {"runtime": {"device": "cpu", "compile": True}})
    stage = next(stage for stage in stages_of(recipe) if stage.name == "r1-class")
    assert isinstance(stage, TrainingStage)
    student = network()
    names = list(student.state_dict())
    plain = network()
    objective = build_objective(recipe, stage, student, NoInputs())
    assert isinstance(objective, SelfTraining)
    image = torch.rand(2, 3, 32, 32)
    torch.manual_seed(1)
    logits = student(image).logits
    torch.manual_seed(1)
    assert torch.allclose(logits, plain(image).logits, atol=1e-4)
    assert list(student.state_dict()) == names
    assert torch.allclose(
        objective.teacher.logits(image), SelfTraining(plain, "class").teacher.logits(image), atol=1e-4
    )


def test_a_network_that_takes_no_odd_sizes_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Even(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[-1] % 32:
                raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)\nmore")
            return image

    monkeypatch.setattr("domainbridge.build.networks.build_segmenter", lambda *_, **__: Even())
    recipe = parse_recipe(copy.deepcopy(RECIPE))
    with pytest.raises(ModelError, match=r"takes no images of 1x1 pixels .The size of tensor a .3. must match"):
        check_network(recipe, stages_of(recipe))
