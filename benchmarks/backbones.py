"""Every family of backbones, one small name each: ``python -m benchmarks backbones [NAME:STRIDE ...] [--out FILE]``.

A name passes if images of four sizes go through, a step of each objective gives finite losses and gradients for every
weight of the backbone, prototypes can be taken, and a saved and loaded model gives the same logits. Prints the table of
docs/backbones.md: parameters, CPU seconds of a forward pass and of a training step in one thread. CPU seconds are those
of the process: other work on the machine lengthens them little.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from domainbridge.methods.base import Objective
from domainbridge.methods.distillation import Distillation, Teacher
from domainbridge.methods.prototypes import empty_bank, image_means, running_mean
from domainbridge.methods.self_training import SelfTraining
from domainbridge.models.backbones.base import Backbone
from domainbridge.models.heads.base import HeadSpec
from domainbridge.models.model_folder import ModelConfig, load_model, save_model
from domainbridge.models.segmenter import ModelSpec, Segmenter, build_segmenter
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import Runtime
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer
from domainbridge.types import Batch

__all__ = ["NAMES", "SIZES", "Passed", "exercise", "main"]

NAMES = (
    *("resnet18_v1c:8", "efficientnet_lite0:16", "mobilenetv4_conv_small:16", "regnety_002:16", "hgnetv2_b0:32"),
    *("hrnet_w18_small:32", "dla34:32", "densenet121:32", "halonet26t:16", "repvit_m0_9:32", "fastvit_t8:32"),
    *("convnext_atto:16", "convnextv2_atto:32", "mambaout_femto:32", "poolformer_s12:32", "caformer_s18:32"),
    *("swin_tiny_patch4_window7_224:32", "swinv2_tiny_window8_256:32", "pvt_v2_b0:32", "maxvit_rmlp_pico_rw_256:32"),
    *("sam2_hiera_tiny:32", "focalnet_tiny_srf:32", "davit_tiny:32", "edgenext_xx_small:32"),
    *("mobilevit_xxs:16", "nextvit_small:32", "twins_svt_small:32", "tiny_vit_5m_224:32", "xcit_nano_12_p16_224:16"),
    *("vit_tiny_patch16_224:16", "vit_small_patch14_reg4_dinov2:16", "vit_small_patch16_dinov3:16"),
    *("eva02_tiny_patch14_224:16", "vit_base_patch16_siglip_224:16", "deit3_small_patch16_224:16"),
)
"""NAME:OUTPUT STRIDE, the smallest name of each family."""

SIZES = ((64, 64), (112, 224), (202, 301), (33, 49))
"""Height and width: multiples of 32, of 14 and 16, and of nothing."""
_CLASSES, _CHANNELS, _CROP, _ROWS = 5, 16, 64, 2


@dataclass(frozen=True)
class Passed:
    """What a name showed.

    Attributes:
        name: of the backbone.
        output_stride: of its deepest map.
        parameters: of the backbone, in millions.
        forward_seconds: CPU seconds of one image of 224x112 pixels.
        step_seconds: CPU seconds of a step of the cut path, two crops of 64x64 pixels.
    """

    name: str
    output_stride: int
    parameters: float
    forward_seconds: float
    step_seconds: float


def exercise(name: str, output_stride: int, head: str = "deeplabv2") -> Passed:
    """Take a backbone through everything that a run does with it.

    Raises:
        AssertionError: something is not as it should be.
    """
    spec = ModelSpec(name, output_stride, _CLASSES, HeadSpec(head, _CHANNELS, (1, 2)))
    torch.manual_seed(0)
    network = build_segmenter(spec).eval()
    forward = _forward_passes(network, spec)
    torch.manual_seed(1)
    image, label = torch.rand(_ROWS, 3, _CROP, _CROP), torch.randint(0, _CLASSES, (_ROWS, _CROP, _CROP))
    batch = Batch(image, label, image.flip(0))
    _gradients(network.backbone, image)
    students = [build_segmenter(spec) for _ in range(2)]
    steps = [
        _step(SelfTraining(student, path, augmentation=AugmentationConfig()), batch)
        for student, path in zip(students, ("class", "cut"), strict=True)
    ]
    teachers = []
    for student in students:
        student.eval().requires_grad_(requires_grad=False)
        means, counts = image_means(student, image, _CLASSES, 1)
        teachers.append(Teacher(student, running_mean(empty_bank(_CLASSES, _CHANNELS, image.device), means, counts, 9)))
    assert all(teacher.prototypes.vectors.isfinite().all() for teacher in teachers)
    _step(Distillation(network, tuple(teachers), augmentation=AugmentationConfig()), batch)
    _kept(network.eval(), spec, image)
    parameters = sum(weight.numel() for weight in network.backbone.parameters()) / 1e6
    return Passed(name, output_stride, round(parameters, 1), round(forward, 3), round(steps[1], 3))


def _forward_passes(network: Segmenter, spec: ModelSpec) -> float:
    """Seconds of the second size; the maps of every size are as large as the interface says."""
    seconds = []
    for height, width in SIZES:
        image = torch.rand(1, 3, height, width)
        began = time.process_time()
        with torch.no_grad():
            maps = network.backbone(image)
            seconds.append(time.process_time() - began)
            logits = network(image).logits
        for each, stride in zip(maps, (4, spec.output_stride), strict=True):
            assert each.shape[-2:] == (-(-height // stride), -(-width // stride)), (tuple(each.shape), height, width)
        assert logits.isfinite().all()
        assert logits.shape[1] == _CLASSES
    return seconds[1]


def _step(objective: Objective, batch: Batch) -> float:
    """Seconds of one step through the training loop."""
    student = objective.student.train()
    progress: list[Progress] = []
    began = time.process_time()
    fit(
        objective,
        build_optimizer(student, 1e-5, 10, 0.01),
        iter([batch]),
        TrainConfig("stage", 0, 0, Schedule(1), "float32", 1, 2),
        Runtime(torch.device("cpu"), 0),
        report=progress.append,
        checkpoint=lambda _: None,
    )
    assert all(value == value and abs(value) < float("inf") for value in progress[0].losses.values()), progress[0]
    return time.process_time() - began


def _gradients(backbone: Backbone, image: torch.Tensor) -> None:
    """Every weight has a gradient when all maps are used: none is in the way of training on several devices."""
    backbone = copy.deepcopy(backbone).train()
    sum(each.square().mean() for each in backbone(image, pyramid=True)).backward()  # type: ignore[union-attr]
    missing = [name for name, weight in backbone.named_parameters() if weight.grad is None]
    assert not missing, f"weights without a gradient: {missing[:5]}"


def _kept(network: Segmenter, spec: ModelSpec, image: torch.Tensor) -> None:
    """A saved model gives the same logits when it is loaded."""
    classes = tuple(f"class {number}" for number in range(_CLASSES))
    colors = tuple((number, number, number) for number in range(_CLASSES))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_model(Path(folder), network, ModelConfig(spec, "five", classes, colors, None))
        loaded, _ = load_model(Path(folder))
        assert torch.equal(loaded(image).logits, network(image).logits)


def main(arguments: Sequence[str]) -> int:
    """The table as Markdown; 1 if a name fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks backbones", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME:STRIDE", default=NAMES)
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| backbone | output stride | parameters, M | forward, s | step, s |\n|---|---|---|---|---|")
    passed, failed = [], 0
    for each in options.names:
        name, _, stride = each.partition(":")
        try:
            result = exercise(name, int(stride or 16))
        except Exception as error:  # of whatever kind: the other names are tried too
            failed += 1
            print(f"| {name} | {stride} | FAILED: {type(error).__name__}: {str(error)[:200]} | | |", flush=True)
            continue
        passed.append(asdict(result))
        print(f"| {' | '.join(str(value) for value in asdict(result).values())} |", flush=True)
    if options.out:
        options.out.write_text(json.dumps(passed, indent=1) + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
