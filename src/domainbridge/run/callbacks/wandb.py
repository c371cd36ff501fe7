"""Weights & Biases (``pip install 'domainbridge[wandb]'``), configured by its own environment variables."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbridge.errors import RecipeError
from domainbridge.evaluation.confusion import Scores
from domainbridge.run.callbacks.base import NullCallback, register_callback
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.example_images import ExampleImages
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results

__all__ = ["WandbCallback"]


@register_callback("wandb")
class WandbCallback(NullCallback):
    """One W&B run per start; metrics are named ``STAGE/...`` over ``STAGE/step``."""

    def __init__(self) -> None:
        try:
            self.wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise RecipeError(
                "runtime.callbacks: wandb is not installed; run: pip install 'domainbridge[wandb]'"
            ) from None
        self.run: Any = None

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Start a W&B run with the recipe as its configuration."""
        self.run = self.wandb.init(
            project="domainbridge", name=recipe.name, dir=str(folder), config=recipe.model_dump(mode="json")
        )

    def training_begins(self, node: "Node", step: int) -> None:
        """Plot the stage's metrics over its own steps."""
        self.run.define_metric(f"{node.name}/*", step_metric=f"{node.name}/step")

    def progress(self, node: "Node", progress: Progress) -> None:
        """Log one report."""
        values = {**progress.losses, **progress.metrics, "learning_rate": progress.learning_rate, "step": progress.step}
        self.run.log({f"{node.name}/{name}": value for name, value in values.items()})

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Put the mIoU of each target into the summary."""
        for target, scores in targets.items():
            self.run.summary[f"{node.name}/mIoU/{target}"] = scores.miou

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Put the mIoU on the test images into the summary."""
        self.stage_scored(node, {f"{target} test": scores for target, scores in targets.items()})

    def stage_examples(self, node: "Node", examples: "ExampleImages") -> None:
        """Log the panel."""
        self.run.log({f"{node.name}/examples": self.wandb.Image(examples.panel())})

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """Say how the run ended."""
        self.run.summary["finished"] = finished

    def close(self) -> None:
        """Finish the W&B run."""
        if self.run is not None:
            self.run.finish()
            self.run = None
