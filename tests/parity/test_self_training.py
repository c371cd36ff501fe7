"""Golden c and d: the moving average, cross entropy, and five iterations of self-training."""

import golden_arrays as golden
import numpy as np
import torch

from domainbridge.methods.mean_teacher import MeanTeacher
from domainbridge.methods.self_training import PseudoLabel, SelfTraining, confident_pseudo_label
from domainbridge.models.mmseg_names import from_published
from domainbridge.models.pretrained import load_checked
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.losses import cross_entropy
from domainbridge.ops.mixing import Mixed, paste
from domainbridge.training.optimizer import build_optimizer, set_rates
from domainbridge.types import Batch

SHAPE = (2, 3, 64, 96)


def test_moving_average(compare) -> None:
    """After each update the norm; at the end the values.

    The recorded ``init`` and ``iterN`` arrays of c_ema.npz are all equal to the state after the last update (they
    were views of live tensors), so the values can be compared only there.
    """
    arrays = golden.arrays("c_ema.npz")
    student = golden.tiny_network(golden.published_weights("c/0/"))
    teacher = MeanTeacher(student, 0.99)
    averaged = dict(teacher.model.named_parameters())
    updates = golden.table("c_ema.json")["updates"]
    for update in updates:
        step = update["iter"]
        load_checked(student, from_published(golden.published_weights(f"c/{step}/")), "student")
        teacher.update(step)
        norm = torch.stack([p.double().square().sum() for p in averaged.values()]).sum().sqrt()
        compare("c norm after each update", norm, update["ema_norm_after"], 1e-5)
    for key, value in arrays.items():
        if key.startswith("init/ema/"):
            compare("c average after the last update", averaged[golden.our_name(key[9:])], value, 1e-6)
        elif "/ema_after/" in key:
            ours = averaged[golden.our_name(key.split("/", 2)[2])]
            compare("c average after the last update", ours, value, 1e-6)


def test_cross_entropy_averages_over_all_pixels(compare) -> None:
    case = golden.arrays("d_ce_semantics.npz")
    logits, label = torch.from_numpy(case["pred"]), torch.from_numpy(case["label"]).long()
    compare("d cross entropy", cross_entropy(logits, label), case["loss_unweighted"], 1e-6)
    weighted = cross_entropy(logits, label, torch.from_numpy(case["weight"]))
    compare("d cross entropy, weighted", weighted, case["loss_weighted"], 1e-6)


def batch_of(step: int) -> Batch:
    label = golden.blocky_label(f"d/gt/{step}", (2, 64, 96), 8, ignored=0.08)
    return Batch(golden.image(f"d/src/{step}", SHAPE), label, golden.image(f"d/tgt/{step}", SHAPE))


def published_mask(label: torch.Tensor, seed: int) -> torch.Tensor:
    """The class mask that the authors' draw gives: NumPy's legacy choice, 255 counting as a class."""
    generator = np.random.RandomState(seed)
    masks = []
    for row in label.numpy():
        values = np.unique(row)
        masks.append(np.isin(row, generator.choice(values, (len(values) + 1) // 2, replace=False)))
    return torch.from_numpy(np.stack(masks))


class GivenMask(SelfTraining):
    """Self-training with masks from outside instead of drawn ones."""

    given: torch.Tensor

    def mask(self, source_label: torch.Tensor, generator: torch.Generator, rows: object = None) -> torch.Tensor:
        return self.given


def pasted(batch: Batch, mask: torch.Tensor, pseudo: PseudoLabel) -> Mixed:
    return paste(mask, batch.source_image, batch.source_label, batch.target_image, pseudo.label, pseudo.weight)


def published_start() -> tuple[Segmenter, GivenMask]:
    student = golden.tiny_network(golden.published_weights("st/", 12)).train()
    objective = GivenMask(student, "class", ignore_as_class=True)
    garbage = from_published(golden.published_weights("st_ema_garbage/"))
    objective.teacher.model.load_state_dict(garbage)
    return student, objective


def test_five_iterations(compare) -> None:
    trajectory = golden.table("d_st_trajectory.json")
    assert len(trajectory) == len(golden.names("d_st_iter"))
    student, objective = published_start()
    for key, value in golden.arrays("d_weights.npz").items():
        compare("d initial weights", student.state_dict()[golden.our_name(key)], value, 1e-6)
    optimizer = build_optimizer(student, 6e-5, 10, 0.01)
    set_rates(optimizer, 1.0)
    for entry in trajectory:
        step = entry["iter"]
        case = golden.arrays(f"d_st_iter{step}.npz")
        batch = batch_of(step)
        objective.given = published_mask(batch.source_label, 100 + step)
        if step == 0:
            check_inputs(batch, objective.given, case, compare)
        objective.before_step(step)
        check_pseudo_label(objective, batch, case, entry, compare)
        losses = dict(objective.losses(batch, torch.Generator()))
        compare("d source loss", losses["source"], entry["log_vars"]["decode.loss_ce"], 2e-4)
        compare("d bridged loss", losses["bridged"], entry["log_vars"]["mix.decode.loss_ce"], 2e-4)
        optimizer.zero_grad()
        if step == 0:
            losses["source"].backward(retain_graph=True)
            check_gradients(student, case, "grad_clean/", "grad_norms_clean", compare)
            losses["bridged"].backward()
            check_gradients(student, case, "grad/", "grad_norms", compare)
        else:
            (losses["source"] + losses["bridged"]).backward()
        norm = torch.stack([p.grad.double().square().sum() for p in student.parameters()]).sum().sqrt()
        compare("d gradient norm, relative", norm / entry["total_grad_norm"], 1.0, 2e-4)
        optimizer.step()
        check_parameters(student, objective, case, compare)


def check_inputs(batch: Batch, mask: torch.Tensor, case: dict, compare) -> None:
    compare("d inputs", batch.source_image, case["src_img"], 0)
    compare("d inputs", batch.target_image, case["tgt_img"], 0)
    compare("d inputs", batch.source_label, case["src_gt"][:, 0], 0)
    compare("d class mask", mask, case["mask"][:, 0], 0)
    mixed = pasted(batch, mask, confident_pseudo_label(torch.zeros(2, 19, 64, 96), 0.968))
    compare("d bridged image", mixed.image, case["bridging_img"], 0)


def check_pseudo_label(objective: GivenMask, batch: Batch, case: dict, entry: dict, compare) -> None:
    buffers = {name: value.clone() for name, value in objective.teacher.model.named_buffers()}
    logits = objective.teacher.logits(batch.target_image)
    compare("d teacher logits", logits[:, :, ::4, ::4], case["ema_logits"], 5e-3)
    pseudo = confident_pseudo_label(logits, 0.968)
    agreement = (pseudo.label.numpy() == case["pseudo_label"]).mean()
    compare("d pseudo-labels, share that differs", 1 - agreement, 0.0, 3e-4)
    compare("d confident share", pseudo.weight[0, 0, 0], entry["pseudo_frac"], 3e-4)
    mixed = pasted(batch, objective.given, pseudo)
    compare("d bridged weight", mixed.weight, case["mixed_weight"], 3e-4)
    same = (mixed.label.numpy() == case["mixed_label"][:, 0]).mean()
    compare("d bridged label, share that differs", 1 - same, 0.0, 3e-4)
    for name, value in objective.teacher.model.named_buffers():
        value.copy_(buffers[name])  # looking must not move the teacher's BatchNorm


def check_gradients(student: Segmenter, case: dict, prefix: str, norms: str, compare) -> None:
    gradients = {name: p.grad for name, p in student.named_parameters()}
    for key, value in case.items():
        if key.startswith(prefix):
            ours = gradients[golden.our_name(key.removeprefix(prefix))]
            scale = float(np.abs(value).max())
            compare(f"d gradients ({prefix[:-1]}), relative", ours / scale, value / scale, 2e-4)
    for key, norm in zip(case["grad_norm_names"], case[norms], strict=True):
        name = golden.our_name(str(key).removeprefix("model."))
        compare(
            "d gradient norms, relative",
            gradients[name].double().norm() / max(norm, 1e-3),
            norm / max(norm, 1e-3),
            1e-3,
        )


def check_parameters(student: Segmenter, objective: GivenMask, case: dict, compare) -> None:
    trained, averaged = student.state_dict(), objective.teacher.model.state_dict()
    for key, value in case.items():
        kind, _, name = key.partition("/")
        if kind == "student_after":
            rate = 6e-4 if name.startswith("decode_head") else 6e-5
            compare("d parameters after AdamW, in rates", trained[golden.our_name(name)] / rate, value / rate, 0.1)
        elif kind == "ema_used":
            compare("d teacher parameters", averaged[golden.our_name(name)], value, 5e-5)
        elif kind == "student_buf_after":
            compare("d student buffers", trained[golden.our_name(name)], value, 2e-3)
        elif kind == "ema_buf_after":
            compare("d teacher buffers", averaged[golden.our_name(name)], value, 2e-3)


def test_ignored_rows(compare) -> None:
    case = golden.arrays("d_st_ignore_top_bottom.npz")
    _, objective = published_start()
    batch = batch_of(0)
    objective.given = published_mask(batch.source_label, 100)
    objective.ignore_top, objective.ignore_bottom = 5, 9
    objective.before_step(0)
    losses = dict(objective.losses(batch, torch.Generator()))
    compare("d ignored rows, source loss", losses["source"], case["log/decode.loss_ce"], 2e-4)
    compare("d ignored rows, bridged loss", losses["bridged"], case["log/mix.decode.loss_ce"], 2e-4)
    pseudo = objective.pseudo_label(batch.target_image)
    mixed = pasted(batch, objective.given, pseudo)
    compare("d ignored rows, weight", mixed.weight, case["mixed_weight"], 1e-3)
