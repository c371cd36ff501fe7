"""TensorBoard: ``tensorboard --logdir runs`` shows every stage of every run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from domainbridge.evaluation.confusion import Scores
from domainbridge.run.callbacks.base import NullCallback, register_callback
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.example_images import ExampleImages
    from domainbridge.run.graph import Node, PlannedStage

__all__ = ["TensorBoardCallback"]


@register_callback("tensorboard")
class TensorBoardCallback(NullCallback):
    """Losses, learning rate, metrics such as the pseudo-label share, mIoU per target, a panel of example images.

    Event files lie in each stage's folder, so that a stage that runs again begins an empty curve.
    """

    per_stage = True

    def __init__(self) -> None:
        self.writer: SummaryWriter | None = None
        self.stage = ""

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Remember the run folder."""
        self.folder = folder

    def stage_begins(self, planned: "PlannedStage") -> None:
        """Close the last stage's file; a stage that gets a model without training begins its file here."""
        self.close()
        node = planned.node
        if planned.open and node.keeps_model and node.training is None:
            self.training_begins(node, 0)

    def training_begins(self, node: "Node", step: int) -> None:
        """Open the stage's file; reports of later steps are hidden."""
        self.close()
        self.stage = node.name
        self.writer = SummaryWriter(str(self.folder / node.name), purge_step=step + 1)

    def progress(self, node: "Node", progress: Progress) -> None:
        """Add a point to each curve."""
        if self.writer is None or node.name != self.stage or node.training is None:
            return
        points = {f"loss/{name}": value for name, value in progress.losses.items()}
        points |= {f"metrics/{name}": value for name, value in progress.metrics.items()}
        points |= {"learning_rate": progress.learning_rate, "seconds_per_step": progress.seconds}
        points["data_share"] = progress.data_share
        for name, value in points.items():
            self.writer.add_scalar(name, value, progress.step)

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Add the mIoU of each target, and every class's IoU."""
        self._add_scores(node, targets)

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Add the same of the test images."""
        self._add_scores(node, {f"{name} test": scores for name, scores in targets.items()})

    def _add_scores(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        if self.writer is None or node.name != self.stage:
            return
        for target, scores in targets.items():
            values = {f"mIoU/{target}": scores.miou}
            values |= {f"IoU {target}/{name}": iou for name, iou in scores.iou.items()}
            for name, value in values.items():
                if value is not None:
                    self.writer.add_scalar(name, value, node.steps)

    def stage_examples(self, node: "Node", examples: "ExampleImages") -> None:
        """Add the panel."""
        if self.writer is not None and node.name == self.stage:
            panel = examples.panel()
            self.writer.add_image("examples", panel, node.steps, dataformats="HWC")

    def close(self) -> None:
        """Write everything."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
