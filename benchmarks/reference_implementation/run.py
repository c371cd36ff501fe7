"""A whole run: a script per stage, weights on disk in between, everything loaded in the loop."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reference_implementation.data import target_crop, training_pair
from benchmarks.reference_implementation.distillation import DistillationStep
from benchmarks.reference_implementation.evaluation import mean_iou
from benchmarks.reference_implementation.prototypes import Centroids
from benchmarks.reference_implementation.self_training import SelfTrainingStep, loss_at_full_size
from domainbridge.build.datasets import DataSets
from domainbridge.build.networks import initial_student, model_spec
from domainbridge.config.schema import Recipe
from domainbridge.data.labels import IdLabels
from domainbridge.methods.base import PrototypeStage, TrainingStage
from domainbridge.models.segmenter import Segmenter
from domainbridge.run.graph import Node
from domainbridge.training.optimizer import Schedule
from domainbridge.types import Batch

__all__ = ["ReferenceRun"]

_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class ReferenceRun:
    """The recipe's stages one by one, on images that are all ``size`` (width, height)."""

    def __init__(self, recipe: Recipe, data: DataSets, folder: Path, size: tuple[int, int]) -> None:
        self.recipe, self.data, self.folder, self.size = recipe, data, folder, size
        self.spec = model_spec(recipe)
        decoder = data.sources[0].decoder
        assert isinstance(decoder, IdLabels)
        self.table = decoder.table[:256].astype(np.uint8)
        self.generator = np.random.default_rng(recipe.seed)
        random.seed(recipe.seed)
        torch.manual_seed(recipe.seed)

    def stage(self, stage: Node) -> float | None:
        """Do a stage; the mIoU of its student on the first target, None for prototypes."""
        if isinstance(stage.spec, PrototypeStage):
            for student in stage.spec.students:
                self._collect(student)
            return None
        student = self._student(stage)
        self._train(stage, student.train())
        torch.save(student.state_dict(), self.folder / f"{stage.name}.pth")
        name = self.recipe.targets[0].name
        samples = self.data.validation[name]
        loaded = (samples[index] for index in range(len(samples)))
        return mean_iou(student.eval(), loaded, self.spec.num_classes)

    def _student(self, stage: Node) -> Segmenter:
        student = self._network(stage.name)
        assert isinstance(stage.spec, TrainingStage)
        if stage.spec.init is not None:
            student.load_state_dict(torch.load(self.folder / f"{stage.spec.init}.pth"))
        return student

    def _network(self, name: str) -> Segmenter:
        """In the memory layout that ours has: what it saves is not the benchmark."""
        return initial_student(self.recipe, name).to(memory_format=torch.channels_last)

    def _train(self, stage: Node, student: Segmenter) -> None:
        training = stage.training
        assert training is not None
        rates = {
            student.backbone: training.learning_rate,
            student.head: training.learning_rate * training.head_lr_mult,
        }
        optimizer = torch.optim.AdamW(
            [{"params": list(part.parameters()), "base": rate} for part, rate in rates.items()],
            lr=0.0,
            weight_decay=training.weight_decay,
            foreach=False,
            fused=False,
        )
        step = self._step(stage, student, optimizer)
        schedule = Schedule(training.steps, training.warmup_steps, training.warmup_ratio)
        distort = stage.name.endswith("distill")
        for number, batch in enumerate(self._batches(training.steps, training.batch_size, distort)):
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * schedule.factor(number)
            step(batch)

    def _step(self, stage: Node, student: Segmenter, optimizer: torch.optim.Optimizer) -> Callable[[Batch], Any]:
        part = stage.name.rpartition("-")[2]
        if part in ("cut", "class"):
            teacher = self._network(stage.name).requires_grad_(False).train()
            return SelfTrainingStep(student, teacher, optimizer, part)
        if part == "distill":
            paths = [name for name in stage.spec.inputs if name.endswith(("-cut", "-class"))]
            return DistillationStep(student, [self._teacher(name) for name in paths], optimizer)

        def supervised(batch: Batch) -> float:
            optimizer.zero_grad()
            loss = loss_at_full_size(student(batch.source_image).logits, batch.source_label)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return supervised

    def _teacher(self, name: str) -> tuple[Segmenter, Tensor]:
        teacher = self._network(name).requires_grad_(False).eval()
        teacher.load_state_dict(torch.load(self.folder / f"{name}.pth"))
        return teacher, torch.load(self.folder / f"{name}-prototypes.pth")

    def _collect(self, name: str) -> None:
        teacher = self._network(name).eval()
        teacher.load_state_dict(torch.load(self.folder / f"{name}.pth"))
        rule = self.recipe.prototypes
        centroids = Centroids(self.spec.num_classes, self.spec.head.channels, rule.min_pixels, rule.max_count)
        crop = self.recipe.crop.height
        for _ in range(rule.passes):
            for path in self.data.targets[0].images:
                image = _unit(target_crop(path, crop, self.generator, self.size)[None])
                with torch.no_grad():
                    centroids.add(*teacher(image), (crop, crop))
        torch.save(centroids.vectors, self.folder / f"{name}-prototypes.pth")

    def _batches(self, steps: int, rows: int, distort: bool) -> Iterator[Batch]:
        """Crops loaded one by one; the network normalizes itself, so the loader's normalization is taken back."""
        source, target = self.data.sources[0], self.data.targets[0]
        assert source.labels is not None
        crop, sizes = self.recipe.crop.height, (self.size, self.size)
        for _ in range(steps):
            parts = []
            for _ in range(rows):
                one, other = (int(self.generator.integers(len(samples))) for samples in (source, target))
                paths = (source.images[one], source.labels[one], target.images[other])
                parts.append(
                    training_pair(*paths, crop, self.generator, sizes=sizes, table=self.table, distort=distort)
                )
            images, labels, others = (torch.stack(column) for column in zip(*parts, strict=True))
            yield Batch(_unit(images), labels, _unit(others))


def _unit(normalized: Tensor) -> Tensor:
    """Back to RGB in [0, 1], which our networks take."""
    return (normalized * _STD + _MEAN).contiguous(memory_format=torch.channels_last)
