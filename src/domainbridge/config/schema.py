"""The recipe: the keys that every method shares. A method's own keys stand beside them (see ``build/recipe.py``)."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from domainbridge.config.base import Section
from domainbridge.config.domains import LabelSpaceConfig, SourceConfig, TargetConfig
from domainbridge.config.sections import (
    CacheConfig,
    CropConfig,
    EvaluationConfig,
    NetworkConfig,
    RuntimeConfig,
    SamplingConfig,
)
from domainbridge.config.training import StageOverride, TrainingConfig

__all__ = ["NAME", "Recipe", "Selection"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
"""Allowed names of a recipe: the run folder has the same name."""
Selection = Literal[
    "last",
    "agreement",
    "confidence",
    "entropy",
    "flip_consistency",
    "jitter_consistency",
    "class_shift",
    "prototype_agreement",
    "predicted_miou",
]


class Recipe(Section):
    """One adaptation, complete. The keys of the method, by default `method: ddb`, stand beside these."""

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=NAME,
        description="name of the recipe and of its run folder: letters, digits and . _ + -, at most 100",
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of everything random: order, crops, masks, colors, initial heads"
    )
    method: str = Field(
        "ddb",
        description="name of the method: ddb, ddb-online, self-training, masked-consistency, prototype-denoising, "
        "source-free, source-only, distill-models, or one of an installed package",
    )
    fidelity: Literal["corrected", "published"] = Field(
        "corrected", description="published: with the quirks of the authors' code, see docs/method.md"
    )
    data_root: str | None = Field(
        None, description="path to the folder of all data sets; default: $DOMAINBRIDGE_DATA, else 'data'"
    )
    label_space: str | LabelSpaceConfig = Field(
        "cityscapes19", description="classes that the network predicts: cityscapes19, camvid11, idd7, or your own"
    )
    sources: tuple[SourceConfig, ...] = Field(
        max_length=1000, description="labeled domains; [] for method source-free, which has none"
    )
    targets: tuple[TargetConfig, ...] = Field(min_length=1, max_length=1000, description="unlabeled domains")
    init: str | None = Field(
        None,
        min_length=1,
        description="path to a model folder, relative to the current folder, that the run starts from in the place of "
        "model.weights; its network is the recipe's; default: none",
    )
    oracle: bool = Field(
        False,
        description="train on the targets' own labels too (section oracle of a target), stage oracle, with the steps "
        "of source-only: an upper bound; no other stage reads these labels",
    )
    model: NetworkConfig = NetworkConfig()
    crop: CropConfig = CropConfig()
    sampling: SamplingConfig = SamplingConfig()
    training: TrainingConfig = TrainingConfig()
    stages: dict[str, StageOverride] = Field({}, description="name of a stage -> its own values of `training`")
    evaluation: EvaluationConfig = EvaluationConfig()
    selection: Selection = Field(
        "last",
        description="stage whose model is the run's: the last one, or the best of each round's student by a score "
        "without labels, see docs/label-free.md",
    )
    cache: CacheConfig = CacheConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @field_validator("sources", "targets")
    @classmethod
    def _unique_names(
        cls, domains: tuple[SourceConfig, ...] | tuple[TargetConfig, ...]
    ) -> tuple[SourceConfig, ...] | tuple[TargetConfig, ...]:
        names = [domain.name for domain in domains]
        if len(set(names)) != len(names):
            raise ValueError(f"names must differ from each other, found {', '.join(names)}")
        return domains

    @model_validator(mode="after")
    def _oracle_has_labels(self) -> Self:
        if self.oracle and not any(target.oracle for target in self.targets):
            raise ValueError(
                "oracle: needs labels of a target's training images: give a target a section oracle with labels, such "
                "as oracle: {labels: masks}, or leave the key out"
            )
        return self
