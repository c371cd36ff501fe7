"""What a run will cost: memory that follows from the network's size, time from what was measured before."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from domainbridge.config.schema import Recipe
from domainbridge.models.segmenter import build_segmenter
from domainbridge.pipeline.networks import model_spec
from domainbridge.pipeline.plan import Stage
from domainbridge.pipeline.stages import parsed_line

__all__ = ["Estimate", "estimate"]

_COST = {"source-only": 1.0, "cut": 2.2, "class": 2.2, "distil": 2.5}
"""Cost of a step in passes forward and backward over one batch: measured ratios, used where a kind was not timed."""
_BYTES = 4


@dataclass(frozen=True)
class Estimate:
    """Seconds per stage where they can be told, and how the figures were come by."""

    seconds: dict[str, float]
    explanation: str


def estimate(recipe: Recipe, stages: list[Stage], folder: Path) -> Estimate:
    """Memory of weights and optimiser; time from this run folder's own measured steps, if it has any."""
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in build_segmenter(model_spec(recipe)).parameters())
    # Weights, gradients, two moments of AdamW; plus the teacher's weights, or two teachers'.
    self_training, distilling = 5 * parameters * _BYTES / 2**20, 6 * parameters * _BYTES / 2**20
    memory = (
        f"memory without activations: {self_training:.0f} MiB in self-training, {distilling:.0f} MiB in distillation "
        f"({parameters / 1e6:.1f} M parameters; weights, gradients, two AdamW moments, teachers)"
    )
    units = [
        seconds / _COST[stage.kind]
        for stage in stages
        if stage.trains and (seconds := _seconds_per_step(folder / stage.name / "metrics.jsonl")) is not None
    ]
    if not units:
        return Estimate({}, f"{memory}\ntime: not measured yet; run a stage with a few steps to have it estimated")
    unit = median(units)
    expected = {s.name: unit * _COST[s.kind] * s.steps for s in stages if s.trains and s.steps is not None}
    return Estimate(expected, f"{memory}\ntime: from the steps measured in this folder, {unit:.2f} s per pass")


def _seconds_per_step(path: Path) -> float | None:
    if not path.exists():
        return None
    entries = [parsed_line(line) for line in path.read_text(encoding="utf-8").splitlines()]
    seconds = [entry["seconds"] for entry in entries if entry is not None]
    return median(seconds) if seconds else None
