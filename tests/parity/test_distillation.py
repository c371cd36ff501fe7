"""Golden f: distances, ensemble weights, pseudo-labels, losses and gradients of distillation's switches."""

from typing import Any

import golden_arrays as golden
import numpy as np
import pytest
import torch

from domainbridge.methods.distillation import Distillation, Teacher, TeacherOutput, prototype_weights
from domainbridge.methods.prototypes import PrototypeBank
from domainbridge.ops.prototype_distance import PrototypeDistances
from domainbridge.ops.upsample import upsample
from domainbridge.types import Batch

SHAPE = (2, 3, 64, 96)
CASES = golden.table("f_ckd_cases.json")


def bank(path: str) -> PrototypeBank:
    vectors = torch.from_numpy(golden.arrays("f_ckd_common.npz")[f"{path}_proto"])
    return PrototypeBank(vectors, vectors.abs().sum(1).gt(0).float())


def teachers(prototypes: bool) -> tuple[Teacher, ...]:
    gains = {"cu": 8, "ca": 5}
    networks = {
        path: golden.tiny_network(golden.published_weights(f"ckd_{path}/", gain)) for path, gain in gains.items()
    }
    return tuple(Teacher(network, bank(path) if prototypes else None) for path, network in networks.items())


def inputs() -> tuple[Batch, torch.Tensor]:
    """The batch, and the student's augmented target image."""
    label = torch.from_numpy(golden.arrays("f_ckd_common.npz")["src_gt"])[:, 0].long()
    target = golden.image("f/tgt", SHAPE)
    augmented = torch.from_numpy((0.5 * golden.unit("f/brg", SHAPE)).astype(np.float32)) + target
    return Batch(golden.image("f/src", SHAPE), label, target), augmented


class GivenImage(Distillation):
    """Distillation with the student's target image from outside instead of a drawn augmentation."""

    def __init__(self, image: torch.Tensor, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.image = image

    def student_image(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return self.image


@pytest.mark.parametrize("path", ["cu", "ca"])
def test_ensemble_weights(path: str, compare) -> None:
    expected = golden.arrays("f_ckd_common.npz")
    batch, _ = inputs()
    teacher = teachers(prototypes=True)[("cu", "ca").index(path)]
    with torch.no_grad():
        output = teacher.model.eval()(batch.target_image)
    half = (slice(None), slice(None), slice(None, None, 2), slice(None, None, 2))
    compare("f teacher logits", upsample(output.logits, (64, 96))[half], expected[f"{path}_logits"], 1e-4)
    features = upsample(output.features, (64, 96))
    compare("f teacher features", features[:1, :8], expected[f"{path}_feat_img0_ch0_7"], 1e-4)
    whole = slice(0, 64)
    distances = PrototypeDistances(output.features, bank(path).vectors, (64, 96)).rows(whole)
    compare("f distances", distances[half], expected[f"{path}_dist"], 1e-4)
    weights = TeacherOutput(output, bank(path), (64, 96), use_missing_prototypes=True).weights(whole)
    compare("f ensemble weights", weights[half], expected[f"{path}_proto_weight"], 1e-4)
    readable = prototype_weights(features, bank(path), use_missing_prototypes=True)
    compare("f ensemble weights, readable formula", readable[half], expected[f"{path}_proto_weight"], 1e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']:02}")
def test_case(case: dict, compare) -> None:
    expected = golden.arrays(case["file"])
    batch, augmented = inputs()
    student = golden.tiny_network(golden.published_weights("ckd_stu/", 3)).train()
    temperature = case.get("temp", 1.0)
    objective = GivenImage(
        augmented,
        student,
        teachers(case["proto_rectify"]),
        mode="soft" if case["soft_distill"] else "hard",
        rectify="probabilities" if case["rectify_on_prob"] else "logits",
        weight_by_confidence=case["use_pl_weight"],
        confidence=case.get("pseudo_threshold", 0.968),
        temperature=temperature,
        soft_weight=case.get("soft_distill_w", 0.1),
        use_missing_prototypes=True,
    )
    losses = dict(objective.losses(batch, torch.Generator()))
    log = case["log_vars"]
    target = log["stu_tgt.loss_distill" if case["soft_distill"] else "stu_tgt.decode.loss_ce"]
    compare("f source loss", losses["source"], log["stu_src.decode.loss_ce"], 1e-4)
    compare("f target loss", losses["target"], target, 1e-4)
    (losses["source"] + losses["target"]).backward()
    check_gradients(student, expected, case, compare)
    if case["soft_distill"]:
        quarter = (slice(None), slice(None), slice(None, None, 4), slice(None, None, 4))
        ensemble = (objective.mean_logits(batch.target_image) / temperature).softmax(1)
        compare("f soft ensemble", ensemble[quarter], expected["ensemble_softmax_sub4"], 1e-4)
    else:
        pseudo = objective.pseudo_label(batch.target_image)
        share = float((pseudo.label.numpy() != expected["pseudo_label"][:, 0]).mean())
        compare("f pseudo-labels, share that differs", share, 0.0, 1e-4)
        weight = pseudo.weight.expand(pseudo.label.shape)
        compare("f pseudo-label weight", weight, expected["pseudo_weight"], 3e-4)


def check_gradients(student: torch.nn.Module, expected: dict, case: dict, compare) -> None:
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    total = torch.stack([gradient.double().square().sum() for gradient in gradients.values()]).sum().sqrt()
    compare("f gradient norm, relative", total / case["total_grad_norm"], 1.0, 1e-4)
    for key, value in expected.items():
        if key.startswith("grad/"):
            ours = gradients[golden.our_name(key.removeprefix("grad/"))]
            scale = float(np.abs(value).max())
            compare("f gradients, relative", ours / scale, value / scale, 2e-4)
    for name, norm in zip(expected["grad_norm_names"], expected["grad_norms"], strict=True):
        ours = gradients[golden.our_name(str(name).removeprefix("model."))].double().norm()
        compare("f gradient norms, relative", ours / max(norm, 1e-3), norm / max(norm, 1e-3), 1e-3)
