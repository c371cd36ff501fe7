"""MLflow (``pip install 'domainbridge[mlflow]'``); ``MLFLOW_TRACKING_URI`` says where."""

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

__all__ = ["MLflowCallback"]


@register_callback("mlflow")
class MLflowCallback(NullCallback):
    """One MLflow run per start; metrics are named ``STAGE/...``."""

    def __init__(self) -> None:
        try:
            self.mlflow: Any = importlib.import_module("mlflow")
        except ImportError:
            raise RecipeError(
                "runtime.callbacks: mlflow is not installed; run: pip install 'domainbridge[mlflow]'"
            ) from None
        self.active = False

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Start an MLflow run with the recipe as its parameters."""
        self.mlflow.set_experiment("domainbridge")
        self.mlflow.start_run(run_name=recipe.name)
        self.active = True
        self.mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.json")
        self.mlflow.set_tag("run_folder", str(folder))

    def progress(self, node: "Node", progress: Progress) -> None:
        """Log one report."""
        values = {**progress.losses, **progress.metrics, "learning_rate": progress.learning_rate}
        self.mlflow.log_metrics({f"{node.name}/{name}": value for name, value in values.items()}, step=progress.step)

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Log the mIoU of each target."""
        for target, scores in targets.items():
            if scores.miou is not None:
                self.mlflow.log_metric(f"{node.name}/mIoU/{target}", scores.miou)

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Log the mIoU on the test images."""
        self.stage_scored(node, {f"{target} test": scores for target, scores in targets.items()})

    def stage_examples(self, node: "Node", examples: "ExampleImages") -> None:
        """Log the panel."""
        self.mlflow.log_image(examples.panel(), f"{node.name}.png")

    def close(self) -> None:
        """End the MLflow run."""
        if self.active:
            self.active = False
            self.mlflow.end_run()
