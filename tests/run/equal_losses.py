"""Losses of 20 self-training steps, BatchNorm in evaluation mode: run alone and under torchrun, written by the first.

python equal_losses.py DATA OUT.json        torchrun --nproc-per-node 2 equal_losses.py DATA OUT.json
"""

import copy
import json
import sys
from pathlib import Path

import torch
from torch import nn

from domainbridge.adaptation.self_training import Augmentation, SelfTraining
from domainbridge.config.load import parse_recipe
from domainbridge.data.streams import PairedCrops, batches
from domainbridge.pipeline.datasets import crop_rule, open_data
from domainbridge.pipeline.networks import initial_student
from domainbridge.training.loop import Plan, fit
from domainbridge.training.optimiser import Schedule, build_optimiser
from domainbridge.training.processes import joined_processes
from domainbridge.training.runtime import resolve_runtime

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
        student = initial_student(recipe, "equal")
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(False)
                module.train = lambda mode=True, module=module: module  # stays in evaluation mode
        objective = SelfTraining(
            student, "class", confidence=0.4, augmentation=Augmentation(), over_devices=processes.mean
        )
        stream = PairedCrops(
            data.source,
            data.target,
            crop_rule(recipe, (0.5, 0.5, 0.5)),
            batch_size=4,
            seed=0,
            stage="equal",
            rows=processes.rows(4),
        )
        finished = fit(
            objective,
            build_optimiser(student, 1e-3, 10, 0.01),
            batches(stream, range(STEPS), workers=0),
            Plan("equal", 0, 0, Schedule(STEPS), log_every=1),
            runtime,
            report=lambda progress: logged.append(progress.losses),
            checkpoint=lambda step: None,
        )
        assert finished
        if processes.leader:
            out.write_text(json.dumps(logged))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
