"""Golden g: learning rates of every stage, and three steps of AdamW."""

import golden_arrays as golden
import torch

from domainbridge.config.training import TrainingConfig
from domainbridge.training.optimizer import Schedule


def test_rates(compare) -> None:
    for stage, entry in golden.table("g_lr.json").items():
        rate = 6e-6 if stage == "r2_st" else 6e-5
        defaults = TrainingConfig(learning_rate=rate)
        schedule = Schedule(defaults.steps, defaults.warmup_steps, defaults.warmup_ratio)
        for point in entry["lrs"]:
            backbone = rate * schedule.factor(point["iter"])
            compare("g rates, relative", backbone / point["backbone"], 1.0, 1e-12)
            compare("g head rates, relative", backbone * defaults.head_lr_mult / point["head"], 1.0, 1e-12)
        assert defaults.weight_decay == entry["defaults"]["weight_decay"]


def test_adamw(compare) -> None:
    case = golden.arrays("g_adamw.npz")
    parameter = torch.nn.Parameter(torch.from_numpy(case["p0"]))
    optimizer = torch.optim.AdamW([parameter], lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    for step in range(sum(key.startswith("g") for key in case)):
        parameter.grad = torch.from_numpy(case[f"g{step}"])
        optimizer.step()
        compare("g AdamW, in rates", parameter.detach() / 6e-5, case[f"p{step + 1}"] / 6e-5, 0.02)
