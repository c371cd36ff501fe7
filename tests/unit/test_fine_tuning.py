"""What trains of a trunk: LoRA, a frozen trunk, layer-wise rates, stochastic depth, clipped gradients."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models._manipulate import group_parameters
from torch import nn

from domainbridge.build.fine_tuning import optimizer_of, prepare_trunk, trunk_notes
from domainbridge.build.recipe import parse_recipe, stages_of
from domainbridge.config.training import TrainingConfig
from domainbridge.errors import ModelError, RecipeError
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.mean_teacher import MeanTeacher
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import SourceOnly
from domainbridge.models.backbones.base import Backbone
from domainbridge.models.backbones.plain_vit import plain_vit
from domainbridge.models.drop_path import set_drop_path
from domainbridge.models.frozen_trunk import share_frozen_trunk
from domainbridge.models.heads.base import HeadSpec, build_head
from domainbridge.models.layers import layer_numbers
from domainbridge.models.lora import add_lora, merge_lora
from domainbridge.models.model_folder import ModelConfig, load_model, save_model
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.run.run import run_recipe
from domainbridge.runtime.device import resolve_runtime
from domainbridge.seeding import torch_generator
from domainbridge.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule
from domainbridge.types import Batch

HEAD = HeadSpec(channels=16, dilations=(1, 2))
SPEC = ModelSpec("test_convnext", 16, 3, HEAD)


def network(seed: int = 0, backbone: str = SPEC.backbone) -> Segmenter:
    torch.manual_seed(seed)
    return build_segmenter(ModelSpec(backbone, 16, 3, HEAD)).train()


def vit(name: str) -> Segmenter:
    """A plain ViT of four small blocks."""
    torch.manual_seed(1)
    backbone = plain_vit(name, 16, img_size=32, dynamic_img_size=True, depth=4, embed_dim=24, num_heads=2)
    head = build_head(HEAD, backbone, 3)
    head.reset(published=False)
    return Segmenter(backbone, head, (0.5,) * 3, (0.5,) * 3).train()


def without_blocks() -> Segmenter:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    backbone = Backbone(body, 4, 4)
    return Segmenter(backbone, build_head(HEAD, backbone, 3), (0.5,) * 3, (0.5,) * 3)


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    source, target = (torch.rand(2, 3, 32, 32, generator=generator) for _ in range(2))
    return Batch(source, torch.randint(3, (2, 32, 32), generator=generator), target)


def train(
    student: Segmenter,
    training: TrainingConfig,
    steps: range = range(3),
    objective: SelfTraining | SourceOnly | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[Progress]:
    reports: list[Progress] = []
    fit(
        objective or SourceOnly(student),
        optimizer or optimizer_of(student, training),
        (batch(step) for step in steps),
        TrainConfig("s", 0, steps.start, Schedule(steps.stop), log_every=1, clip_grad_norm=training.clip_grad_norm),
        resolve_runtime("cpu", 1),
        report=reports.append,
        checkpoint=lambda _: None,
    )
    return reports


@pytest.mark.parametrize("build", [network, lambda: vit("vit_tiny_patch16_224"), lambda: vit("eva02_tiny_patch14_224")])
def test_merged_lora_gives_the_same_logits(build, tmp_path: Path) -> None:
    """A timm ConvNeXt, a plain ViT, and EVA-02, whose attention reads ``qkv.weight`` without calling the layer."""
    student = build()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    training = TrainingConfig(trunk="lora", lora_rank=2, lora_alpha=8, learning_rate=0.05, head_lr_mult=0.1)
    prepare_trunk(student, training, 0, "s")
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert any("down" in name for name in trained)
    assert all(name.startswith("head.") or "parametrizations.weight.0." in name for name in trained)
    image = batch().source_image
    student.eval()
    plain = build().eval()
    assert torch.equal(student(image).logits, plain(image).logits), "B is zero: nothing has changed yet"
    train(student.train(), training)
    unmerged = student.eval()(image).logits
    assert (unmerged - plain(image).logits).abs().max() > 1e-3
    without_up = [weight for name, weight in student.named_parameters() if name.endswith(".up") and not weight.any()]
    assert not without_up, "every difference has learned"
    merge_lora(student)
    assert student.state_dict().keys() == before.keys()
    assert (student(image).logits - unmerged).abs().max() <= 1e-5
    changed = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("backbone.") for name in changed)
    assert not any(name.startswith("backbone.") and name.endswith("bias") for name in changed)
    if build is network:
        config = ModelConfig(SPEC, "s", ("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), None)
        save_model(tmp_path, student, config)
        assert (load_model(tmp_path)[0](image).logits - unmerged).abs().max() <= 1e-5


def test_lora_names_its_layers() -> None:
    student = vit("vit_tiny_patch16_224")
    add_lora(student.backbone, 4, 4, ("qkv",), torch_generator(0))
    assert sum("parametrizations" in name for name, _ in student.named_parameters()) == 4 * 3
    with pytest.raises(ModelError, match=r"lora_targets: .* called query; there are .*fc1.*qkv"):
        add_lora(vit("vit_tiny_patch16_224").backbone, 4, 4, ("query",), torch_generator(0))


def test_lora_draws_from_seed_and_stage_alone() -> None:
    training = TrainingConfig(trunk="lora", lora_rank=2)
    first, again, other = network(), network(), network()
    torch.rand(3)
    for student, stream in ((first, "a"), (again, "a"), (other, "b")):
        prepare_trunk(student, training, 7, stream)
    weights = [dict(student.named_parameters()) for student in (first, again, other)]
    downs = [name for name in weights[0] if name.endswith(".down")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in downs)
    assert not any(torch.equal(weights[0][name], weights[2][name]) for name in downs)


@pytest.mark.parametrize("trunk", ["lora", "frozen"])
def test_a_resumed_run_has_the_same_weights_and_teacher(trunk: str, tmp_path: Path) -> None:
    training = TrainingConfig(trunk=trunk, lora_rank=2, drop_path=0.3, learning_rate=1e-2, clip_grad_norm=0.5)

    def begin(seed: int) -> tuple[Segmenter, SelfTraining, torch.optim.Optimizer]:
        student = network(seed)
        prepare_trunk(student, training, seed, "s")
        return student, SelfTraining(student, teacher_statistics="student"), optimizer_of(student, training)

    student, objective, optimizer = begin(0)
    train(student, training, range(4), objective, optimizer)
    half, half_objective, half_optimizer = begin(0)
    config = TrainConfig("s", 0, 0, Schedule(4), log_every=1, checkpoint_every=2, clip_grad_norm=0.5)

    def save(step: int) -> None:
        parts = (half.state_dict(), half_objective.state_dict(), half_optimizer.state_dict())
        save_checkpoint(tmp_path / "state.pt", Checkpoint(step, "f", *parts, 1.0))

    stops = iter([False, True])
    fit(
        half_objective,
        half_optimizer,
        (batch(step) for step in range(4)),
        config,
        resolve_runtime("cpu", 1),
        report=lambda _: None,
        checkpoint=save,
        stop_requested=lambda: next(stops),
    )
    resumed, resumed_objective, resumed_optimizer = begin(1)
    state = load_checkpoint(tmp_path / "state.pt")
    resumed.load_state_dict(state.student)
    resumed_objective.load_state_dict(state.objective)
    resumed_optimizer.load_state_dict(state.optimizer)
    train(resumed, training, range(2, 4), resumed_objective, resumed_optimizer)
    for done, again in ((student, resumed), (objective.teacher.model, resumed_objective.teacher.model)):
        assert done.state_dict().keys() == again.state_dict().keys()
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in done.state_dict().items())


def test_a_run_keeps_plain_models(recipe_tree: dict[str, Any], tmp_path: Path) -> None:
    """Source-only with LoRA, a path with a frozen trunk from there: its trunk is that of source-only."""
    tree = recipe_tree | {"warm_start": True, "evaluation": {"label_free": {"images": 0}}}
    tree["stages"] = {"source-only": {"trunk": "lora", "lora_rank": 2}, "r1-cut": {"trunk": "frozen"}}
    tree["training"] = recipe_tree["training"] | {"steps": 2, "drop_path": 0.1, "clip_grad_norm": 1.0}
    assert run_recipe(parse_recipe(tree), tmp_path, until="r1-cut")
    first, second = (load_model(tmp_path / name / "model")[0].state_dict() for name in ("source-only", "r1-cut"))
    assert first.keys() == second.keys()
    for name, value in second.items():
        assert torch.equal(value, first[name]) == name.startswith("backbone."), name


def test_keys_without_effect_are_refused(recipe_tree: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"training.lora_rank: has an effect with trunk: lora alone"):
        parse_recipe(recipe_tree, ["training.lora_rank=4"])
    parse_recipe(recipe_tree, ["training.lora_rank=4", "stages.r1-cut.trunk=lora"])
    with pytest.raises(RecipeError, match=r"training.layer_decay: has no effect on a frozen trunk"):
        parse_recipe(recipe_tree, ["training.layer_decay=0.9", "training.trunk=frozen"])
    frozen = parse_recipe(recipe_tree, ["training.trunk=frozen"])
    assert "r1-cut start from a trunk with random weights" in trunk_notes(frozen, stages_of(frozen)[:2])[0]
    assert not trunk_notes(parse_recipe(recipe_tree), stages_of(frozen))


def test_a_frozen_trunk_of_a_small_student_is_told_by_its_weights(recipe_tree: dict[str, Any]) -> None:
    tree = recipe_tree | {"model": {"weights": "imagenet"}, "distillation": {"student": {"backbone": "resnet18_v1c"}}}
    changes = ["training.trunk=frozen", "rounds=1"]
    recipe = parse_recipe(tree, changes)
    assert not trunk_notes(recipe, stages_of(recipe))
    recipe = parse_recipe(tree, [*changes, "distillation.student.weights=none"])
    assert trunk_notes(recipe, stages_of(recipe))[0].startswith("training.trunk: r1-distill start")


class TestFrozenTrunk:
    def counted(self, student: Segmenter) -> list[int]:
        passes: list[int] = []
        student.backbone.body.register_forward_hook(lambda *_: passes.append(1))
        return passes

    def prepared(self, seed: int = 0) -> Segmenter:
        student = network(seed, "test_efficientnet")
        prepare_trunk(student, TrainingConfig(trunk="frozen"), 0, "s")
        return student

    def test_runs_once_per_image_of_a_step(self) -> None:
        """Self-training sees three images, distillation with two teachers the target, the source, its own target."""
        student = self.prepared()
        objective = SelfTraining(student)
        assert objective.teacher.model.backbone is student.backbone
        share_frozen_trunk(student, objective.networks)
        passes = self.counted(student)
        train(student, TrainingConfig(), range(2), objective)
        assert len(passes) == 2 * 3
        teachers = [copy.deepcopy(student) for _ in range(2)]
        for teacher in teachers:
            teacher.seen, teacher.trunk_frozen = None, False
            teacher.backbone = copy.deepcopy(student.backbone)
        distillation = Distillation(student, tuple(map(Teacher, teachers)))
        passes.clear()
        logits = [teacher.eval()(batch().target_image).logits for teacher in teachers]
        share_frozen_trunk(student, distillation.networks)
        shared = [teacher(batch().target_image).logits for teacher in teachers]
        assert all(torch.equal(a, b) for a, b in zip(logits, shared, strict=True)), "the same numbers, shared or not"
        passes.clear()
        train(student, TrainingConfig(), range(2), distillation)
        assert len(passes) == 2 * 2, "no augmentation: the student's target image is that of both teachers"

    def test_another_trunk_is_not_shared(self) -> None:
        student, other = self.prepared(), self.prepared(1)
        share_frozen_trunk(student, (student, other))
        assert other.backbone is not student.backbone
        assert other.seen is None
        finer = build_segmenter(ModelSpec("test_efficientnet", 8, 3, HEAD)).train()
        finer.load_state_dict(student.state_dict())
        share_frozen_trunk(student, (student, finer))
        assert finer.backbone is not student.backbone, "the same weights at another output stride"

    def test_trains_and_averages_the_head_alone(self) -> None:
        student = self.prepared()
        before = copy.deepcopy(student.state_dict())
        objective = SelfTraining(student)
        share_frozen_trunk(student, objective.networks)
        train(student, TrainingConfig(learning_rate=1e-2), range(3), objective)
        for name, value in student.state_dict().items():
            assert torch.equal(value, before[name]) == name.startswith("backbone."), name
        assert not student.backbone.training
        teacher = objective.teacher.model
        assert teacher.head.training
        assert not torch.equal(teacher.head.classifier.weight, student.head.classifier.weight)
        kept = sum(len(maps._maps) for maps in [student.seen])  # type: ignore[union-attr]
        assert kept == 0, "maps live as long as their image"

    def test_is_told_a_changed_image_from_the_same(self) -> None:
        student = self.prepared()
        share_frozen_trunk(student, (student,))
        student.eval()
        passes, image = self.counted(student), batch().source_image
        first = student(image).logits
        image.mul_(0.5)
        assert not torch.equal(student(image).logits, first)
        with torch.autocast("cpu", torch.bfloat16):
            student(image)
        student(image.clone())
        assert len(passes) == 4


class TestLayerDecay:
    @pytest.mark.parametrize(
        "name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "swin_tiny_patch4_window7_224"]
    )
    def test_layers_are_those_of_timm(self, name: str) -> None:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        theirs = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
        assert layer_numbers(model) == theirs

    def test_rates_fall_towards_the_stem(self) -> None:
        student = vit("vit_tiny_patch16_224")
        training = TrainingConfig(
            learning_rate=1e-3,
            layer_decay=0.5,
            head_lr_mult=4,
            lr_mults={"bias": 2.0, "patch_embed.proj.bias": 3.0},
            decay_mults={"bias": 0.0},
        )
        optimizer = optimizer_of(student, training)
        names = {id(weight): name for name, weight in student.named_parameters()}
        rates = {names[id(w)]: (g["base_rate"], g["weight_decay"]) for g in optimizer.param_groups for w in g["params"]}
        assert len(rates) == len(names)
        body = "backbone.body.model."
        assert rates[f"{body}patch_embed.proj.weight"] == pytest.approx((0.0625e-3, 0.01))
        assert rates[f"{body}patch_embed.proj.bias"] == pytest.approx((0.1875e-3, 0))
        assert rates[f"{body}blocks.0.attn.qkv.weight"] == pytest.approx((0.125e-3, 0.01))
        assert rates[f"{body}blocks.3.attn.qkv.bias"] == pytest.approx((2e-3, 0))
        assert rates[f"{body}norm.weight"] == pytest.approx((1e-3, 0.01))
        assert rates["head.classifier.weight"] == pytest.approx((4e-3, 0.01))

    def test_what_fits_nothing_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"lr_mults: no weight's name contains pos_embedding"):
            optimizer_of(network(), TrainingConfig(lr_mults={"pos_embedding": 0.0}))
        with pytest.raises(ModelError, match=r"layer_decay: this backbone has no residual blocks"):
            optimizer_of(without_blocks(), TrainingConfig(layer_decay=0.9))


class TestDropPath:
    def test_grows_from_block_to_block(self) -> None:
        student = vit("vit_tiny_patch16_224")
        set_drop_path(student.backbone, 0.4)
        probs = [m.drop_prob for m in student.modules() if isinstance(m, DropPath)]
        assert probs == pytest.approx([0.4 / 3, 0.4 / 3, 0.8 / 3, 0.8 / 3, 0.4, 0.4])
        conv = network()
        before = conv.state_dict().keys()
        set_drop_path(conv.backbone, 0.4)
        probs = [m.drop_prob for m in conv.modules() if isinstance(m, DropPath)]
        assert probs == sorted(probs)
        assert probs[-1] == 0.4
        assert conv.state_dict().keys() == before
        with pytest.raises(ModelError, match="drop_path: this backbone has no residual branches"):
            set_drop_path(without_blocks().backbone, 0.1)

    def test_is_drawn_per_step_and_off_in_the_teacher(self) -> None:
        losses = []
        for _ in range(2):
            student = network()
            prepare_trunk(student, TrainingConfig(drop_path=0.5), 0, "s")
            torch.rand(5)
            teacher = MeanTeacher(student, statistics="batch")
            assert not any(m.training for m in teacher.model.modules() if isinstance(m, DropPath))
            assert teacher.model.head.training
            losses.append([report.losses for report in train(student, TrainingConfig(learning_rate=1e-9))])
        assert losses[0] == losses[1]


class TestClipping:
    def test_shortens_the_gradients_of_all_weights_together(self) -> None:
        seen: list[list[torch.Tensor]] = []

        class Recorder(torch.optim.AdamW):
            def step(self, closure=None):  # type: ignore[no-untyped-def]
                seen.append([w.grad.clone() for group in self.param_groups for w in group["params"]])
                return super().step(closure)

        for limit in (None, 1e-3):
            student = network()
            optimizer = Recorder([{"params": list(student.parameters()), "base_rate": 1e-4}], fused=True)
            reports = train(student, TrainingConfig(clip_grad_norm=limit), range(1), optimizer=optimizer)
        plain, clipped = (torch.cat([gradient.flatten() for gradient in step]) for step in seen)
        assert plain.norm() > 1e-2
        assert clipped.norm() == pytest.approx(1e-3, rel=1e-3)
        torch.testing.assert_close(clipped, plain * (1e-3 / plain.norm()), rtol=1e-3, atol=1e-9)
        assert reports[0].metrics["gradient_norm"] == pytest.approx(float(plain.norm()), rel=1e-5)

    def test_short_gradients_and_the_default_change_nothing(self) -> None:
        weights = []
        for limit in (None, 1e6):
            student = network()
            train(student, TrainingConfig(clip_grad_norm=limit))
            weights.append(torch.cat([w.detach().flatten() for w in student.parameters()]))
        assert torch.equal(*weights)
