"""Print the table of docs/gpus.md: arithmetic of the published recipe, and hours at assumed rates of arithmetic.

python scripts/gpu_hours.py
"""

from domainbridge.build.recipe import load_recipe, stages_of, training_config
from domainbridge.methods.base import TrainingStage
from domainbridge.tools.costs import costs_of

RATES = {"A100, TF32": 30, "A100, bfloat16": 60, "H100, TF32": 50, "H100, bfloat16": 100}
"""Sustained TFLOP/s of a whole training step, assumed; see docs/gpus.md."""
PRICE = {"A100": 2.0, "H100": 3.0}
"""Dollars per GPU and hour, assumed."""
RECIPE = "gta-to-cityscapes"


def table() -> str:
    """Markdown: a row per stage of the recipe, and the whole run."""
    recipe = load_recipe(RECIPE, [])
    stages = [stage for stage in stages_of(recipe) if isinstance(stage, TrainingStage)]
    costs = costs_of(recipe, recipe.training)
    lines = [
        "| stage | TFLOP a step | steps | " + " | ".join(f"{name}, h" for name in RATES) + " |",
        "|---|---|---|" + "---|" * len(RATES),
    ]
    total = 0.0
    for stage in stages:
        tera, steps = costs.step_operations(stage) / 1e12, training_config(recipe, stage).steps
        total += tera * steps
        lines.append(_row(stage.name, f"{tera:.1f}", f"{steps:,}", tera * steps))
    lines.append(_row("all stages", "", "", total))
    prices = [f"{_hours(total, rate) * PRICE[name[:4]]:.0f}" for name, rate in RATES.items()]
    return "\n".join([*lines, f"| dollars | | | {' | '.join(prices)} |"])


def _row(name: str, tera: str, steps: str, work: float) -> str:
    return f"| {name} | {tera} | {steps} | {' | '.join(f'{_hours(work, rate):.1f}' for rate in RATES.values())} |"


def _hours(tera: float, rate: float) -> float:
    return tera / rate / 3600


if __name__ == "__main__":
    print(table())
