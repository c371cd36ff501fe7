"""From a recipe's crop and sampling keys to the batches of its stages."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from domainbridge.build.datasets import DataSets
from domainbridge.build.label_space import training_space
from domainbridge.build.recipe import stages_of, training_config
from domainbridge.config.schema import Recipe
from domainbridge.data.batches import CropRule, PairedCrops, TargetCrops
from domainbridge.data.dataset import ConcatDataset, Dataset, FileDataset
from domainbridge.data.fingerprint import files_fingerprint
from domainbridge.data.loaders import batches
from domainbridge.data.sampling import Mixture
from domainbridge.data.statistics import RareClasses, counts_of_samples
from domainbridge.errors import RecipeError
from domainbridge.files import ARRAYS_DAMAGED, write_arrays
from domainbridge.methods.base import PrototypeStage, StageSpec, TrainingStage
from domainbridge.models.backbones.base import normalization_of
from domainbridge.runtime.device import Runtime
from domainbridge.types import Rows, as_unit_float

__all__ = [
    "LabeledImages",
    "TrainingData",
    "batch_bytes",
    "batchnorm_batches",
    "batchnorm_count",
    "oracle_data",
    "paired_crops",
    "prototype_crops",
    "rare_classes",
    "training_data",
]

_BATCHNORM_CROPS = 1000
"""Means and variances over so many crops no longer change with more; a pass over as many costs seconds on a GPU."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that training reads.

    Attributes:
        source: all sources, one after the other: the files, or their reduced copies.
        target: all targets likewise.
        source_mixture: how often each source is drawn.
        target_mixture: how often each target is drawn.
        files: of all domains, whatever is read of them.
        rare: rare class sampling, if any.
        oracle: labeled target images for stage oracle, in the place of the sources.
    """

    source: Dataset
    target: Dataset
    source_mixture: Mixture
    target_mixture: Mixture
    files: DataSets
    rare: RareClasses | None = None
    oracle: "LabeledImages | None" = None


class LabeledImages(NamedTuple):
    """What a stage's supervision comes from: images with labels, how often each domain is drawn, rare classes."""

    images: Dataset
    mixture: Mixture
    rare: RareClasses | None


def training_data(
    recipe: Recipe, data: DataSets, source: Dataset, target: Dataset, rare: RareClasses | None = None
) -> TrainingData:
    """The recipe's mixtures over what training reads, without stage oracle's part."""
    fixed = tuple(domain.share for domain in recipe.sources)
    sources = replace(_mixture(recipe, data.sources), fixed=fixed if any(fixed) else ())
    return TrainingData(source, target, sources, _mixture(recipe, data.targets), data, rare)


def oracle_data(
    recipe: Recipe, data: DataSets, images: Dataset | None = None, rare: RareClasses | None = None
) -> LabeledImages | None:
    """What stage oracle reads; ``images``: reduced copies of the files. None for a recipe without the stage."""
    domains = tuple(data.oracle.values())
    if not domains:
        return None
    return LabeledImages(ConcatDataset(domains) if images is None else images, _mixture(recipe, domains), rare)


def _mixture(recipe: Recipe, domains: tuple[FileDataset, ...]) -> Mixture:
    return Mixture(tuple(len(domain) for domain in domains), recipe.sampling.domain_temperature)


def paired_crops(recipe: Recipe, stage: TrainingStage, batch_size: int, data: TrainingData, rows: Rows) -> PairedCrops:
    """The batches that a stage trains on, of which this process loads ``rows``."""
    labeled: LabeledImages | None = LabeledImages(data.source, data.source_mixture, data.rare)
    if stage.supervision == "target":
        labeled = data.oracle
    assert labeled is not None
    return PairedCrops(
        None if stage.supervision == "none" else labeled.images,
        data.target,
        _crop_rule(recipe),
        batch_size=batch_size,
        seed=recipe.seed,
        stage=stage.stream,
        distort_source=stage.distort_source,
        augment_source=training_config(recipe, stage).source_augmentation == "strong",
        rare=labeled.rare,
        source_mixture=labeled.mixture,
        target_mixture=data.target_mixture,
        target_names=tuple(target.name for target in recipe.targets),
        rows=rows,
    )


def prototype_crops(recipe: Recipe, stage: PrototypeStage, data: TrainingData) -> TargetCrops:
    """The target crops that a student's prototypes are collected on."""
    return TargetCrops(
        data.target,
        _crop_rule(recipe),
        batch_size=recipe.training.batch_size,
        passes=stage.config.passes,
        seed=recipe.seed,
        stage=stage.stream,
    )


def batchnorm_count(batch_size: int, images: int) -> int:
    """Number of the batches of :func:`batchnorm_batches` over so many target images."""
    return min(max(images // batch_size, 1), -(-_BATCHNORM_CROPS // batch_size))


def batchnorm_batches(
    recipe: Recipe, stage: StageSpec, batch_size: int, data: TrainingData, runtime: Runtime
) -> Generator[torch.Tensor, None, None]:
    """At most ``_BATCHNORM_CROPS`` target crops, each image once if there are enough for a batch.

    All batches are as large as in training: the average over batches would give a smaller last one too much weight.
    Each process loads its own rows.

    Yields:
        float32 (batch, 3, height, width) in [0, 1], on the device.
    """
    passes = -(-batch_size // len(data.target))
    stream = TargetCrops(
        data.target,
        _crop_rule(recipe),
        batch_size=batch_size,
        passes=passes,
        seed=recipe.seed,
        stage=f"{stage.stream} statistics",
        mixture=data.target_mixture,
        rows=runtime.processes.rows(batch_size),
    )
    steps = range(batchnorm_count(batch_size, len(data.target)))
    pin = runtime.device.type == "cuda"
    with closing(batches(stream, steps, num_workers=runtime.num_workers, pin_memory=pin)) as loaded:
        for image in loaded:
            yield as_unit_float(image.to(runtime.device, non_blocking=True))


def batch_bytes(recipe: Recipe, processes: int) -> int:
    """Bytes of the largest batch of one of several processes: two images and a label per row, as uint8."""
    stages = [stage for stage in stages_of(recipe) if isinstance(stage, TrainingStage)]
    rows = max(training_config(recipe, stage).batch_size for stage in stages) // processes
    return rows * recipe.crop.height * recipe.crop.width * (3 + 3 + 1)


def _crop_rule(recipe: Recipe) -> CropRule:
    """The recipe's crop; padding gets the color that the backbone's normalization turns into about 0."""
    crop = recipe.crop
    red, green, blue = (round(255 * value) for value in normalization_of(recipe.model.backbone)[0])
    padding, scales = (red, green, blue), (crop.scale, crop.target_scale)
    return CropRule((crop.height, crop.width), crop.cat_max_ratio, crop.max_tries, crop.flip, padding, *scales)


def rare_classes(recipe: Recipe, data: DataSets, counts_file: Path, *, oracle: bool = False) -> RareClasses | None:
    """The recipe's rare class sampling, if any; pixel counts of the same files are kept in ``counts_file``.

    Args:
        recipe: complete.
        data: its files.
        counts_file: may be missing, or of other files.
        oracle: of the targets' labels for stage oracle, and not of the sources'.

    Raises:
        RecipeError: no source image shows enough of any class.
    """
    rule = recipe.sampling
    if not rule.rare_classes:
        return None
    side, domains = ("target", tuple(data.oracle.values())) if oracle else ("source", data.sources)
    settings = recipe.model_dump_json(
        include={f"{side}s", "label_space"}, exclude={f"{side}s": {"__all__": {"license"}}}
    )
    fingerprint = "".join([settings, *(files_fingerprint(domain) for domain in domains)])
    classes, labeled = len(training_space(recipe)), ConcatDataset(domains)
    counts = _kept_counts(counts_file, fingerprint, (len(labeled), classes))
    if counts is None:
        counts = counts_of_samples(labeled, classes)[:, :-1]
        write_arrays(counts_file, counts=counts, fingerprint=np.array(fingerprint))
    rare = RareClasses(counts, rule.rcs_temperature, rule.min_share)
    if not rare.shown:
        raise RecipeError(
            f"sampling.min_share: no {side} image shows a class on {rule.min_share:.2%} of its labeled pixels; lower "
            "the share"
        )
    return rare


def _kept_counts(counts_file: Path, fingerprint: str, shape: tuple[int, int]) -> NDArray[np.int64] | None:
    """The kept counts of the same files; None when they are missing, of other files or damaged."""
    try:
        with counts_file.open("rb") as file, np.load(file) as content:
            counts: NDArray[np.int64] = content["counts"]
            same = str(content["fingerprint"]) == fingerprint
    except ARRAYS_DAMAGED:
        return None
    return counts if same and counts.shape == shape and counts.dtype == np.int64 else None
