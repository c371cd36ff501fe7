"""Losses of 20 self-training steps, and the gradients of the first.

Run alone and under torchrun; the main process writes them.

python equal_losses.py DATA OUT.json        torchrun --nproc-per-node 2 equal_losses.py DATA OUT.json
"""

import copy
import json
import sys
from pathlib import Path

import torch

from domainbridge.build.datasets import open_data
from domainbridge.build.networks import initial_student
from domainbridge.build.recipe import parse_recipe
from domainbridge.data.batches import CropRule, PairedCrops
from domainbridge.data.loaders import batches
from domainbridge.methods.self_training import SelfTraining
from domainbridge.ops.photometric import AugmentationConfig
from domainbridge.runtime.device import resolve_runtime
from domainbridge.runtime.distributed import averaging_gradients
from domainbridge.runtime.torchrun import joined_processes
from domainbridge.training.loop import Progress, TrainConfig, fit
from domainbridge.training.optimizer import Schedule, build_optimizer

STEPS = 20


def main(data_root: str, out: Path) -> None:
    from tiny_domain import RECIPE

    torch.use_deterministic_algorithms(True)
    tree = copy.deepcopy(RECIPE) | {"data_root": data_root}
    tree["model"]["head"]["dropout"] = 0.0
    recipe = parse_recipe(tree)
    data = open_data(recipe)
    logged: list[dict[str, float]] = []
    with joined_processes("cpu") as processes:
        runtime = resolve_runtime("cpu", 1, 0, processes)
        student = runtime.place(initial_student(recipe, "equal").train(), channels_last=True)
        objective = SelfTraining(
            student, "class", confidence=0.4, augmentation=AugmentationConfig(), mean_over_devices=processes.mean
        )
        objective.student = averaging_gradients(student, processes, runtime.device)
        gradients: dict[str, list[float]] = {}

        def report(progress: Progress) -> None:
            logged.append(progress.losses)
            for name, weight in student.named_parameters() if not gradients else ():
                gradients[name] = weight.grad.flatten().tolist()

        stream = PairedCrops(
            data.source,
            data.target,
            CropRule((32, 32)),
            batch_size=4,
            seed=0,
            stage="equal",
            rows=processes.rows(4),
        )
        finished = fit(
            objective,
            build_optimizer(student, 1e-3, 10, 0.01),
            batches(stream, range(STEPS), num_workers=0),
            TrainConfig("equal", 0, 0, Schedule(STEPS), log_every=1),
            runtime,
            report=report,
            checkpoint=lambda step: None,
        )
        assert finished
        if processes.is_main:
            out.write_text(json.dumps({"losses": logged, "gradients": gradients}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
