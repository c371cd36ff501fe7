"""Deliberated domain bridging, DDB (Chen et al., NeurIPS 2022, arXiv 2209.07695), as a list of stages.

Per round: two students learn on mixed images, one along the coarse region path (CutMix), one along the fine class path
(ClassMix); prototypes of both are collected on the target; a third student is distilled from the two. The next round's
paths start from that student (docs/method.md, section 5). Key ``paths`` adds a path of masked images (docs/methods.md).
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from domainbridge.config.base import Section
from domainbridge.methods.base import MethodConfig, StageInputs, StageSpec, TrainingStage, register_method
from domainbridge.methods.distillation import Distillation, DistillationConfig, prototype_stage, teachers_of
from domainbridge.methods.masked_consistency import MaskedConfig, masked_stage
from domainbridge.methods.prototypes import PrototypesConfig
from domainbridge.methods.self_training import SelfTrainingConfig, self_training_stage
from domainbridge.methods.source_only import baseline_stages
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.photometric import AugmentationConfig

__all__ = ["DDB", "DDBConfig", "PathKeys", "PathName", "path_stage"]

_MAX_ROUNDS = 9
PathName = Literal["cut", "class", "masked"]
_PATHS: tuple[PathName, ...] = ("cut", "class", "masked")


class PathKeys(MethodConfig):
    """Keys of the paths."""

    paths: tuple[PathName, ...] = Field(
        ("cut", "class"),
        min_length=1,
        max_length=len(_PATHS),
        description="students that teach the next one together: cut, class (published), and masked, that is masked "
        "consistency as in section masked",
    )
    masked: MaskedConfig = MaskedConfig()
    self_training: SelfTrainingConfig = SelfTrainingConfig()
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("paths")
    @classmethod
    def _each_path_once(cls, paths: tuple[PathName, ...]) -> tuple[PathName, ...]:
        if len(set(paths)) != len(paths):
            raise ValueError(f"each path at most once, found {', '.join(paths)}")
        return tuple(path for path in _PATHS if path in paths)  # the order of the sums stays the same


class DDBConfig(PathKeys):
    """Keys of `method: ddb`."""

    rounds: int = Field(2, ge=1, le=_MAX_ROUNDS, description="rounds of both paths, prototypes and distillation")
    later_rounds_lr_factor: float = Field(
        0.1,
        gt=0,
        le=1e6,
        description="learning rate of the paths of round 2 and later / training.learning_rate (published)",
    )
    prototypes: PrototypesConfig = PrototypesConfig()
    distillation: DistillationConfig = DistillationConfig()


def path_stage(
    name: str, path: PathName, config: PathKeys, *, init: str | None, lr_factor: float = 1.0, published: bool = False
) -> TrainingStage:
    """One path as a stage; arguments as of :func:`domainbridge.methods.self_training.self_training_stage`."""
    shared: dict[str, Any] = {"init": init, "lr_factor": lr_factor, "published": published}
    if path == "masked":
        return masked_stage(name, config.self_training, config.masked, config.augmentation, **shared)
    return self_training_stage(name, path, config.self_training, config.augmentation, **shared)


@register_method("ddb")
class DDB:
    """Paths, prototypes, distillation, in rounds."""

    config_class: ClassVar[type[Section]] = DDBConfig

    def __init__(self, config: DDBConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Training stages of any number of rounds."""
        rounds = range(1, _MAX_ROUNDS + 1)
        return ("source-only", *(f"r{number}-{part}" for number in rounds for part in (*_PATHS, "distill")))

    def stages(self) -> list[StageSpec]:
        """The paths of a round start from the last round's student; distillation starts from initial weights.

        With ``warm_start`` everything starts from the latest student.
        """
        config = self.config
        stages = baseline_stages(config)
        latest = "source-only" if config.warm_start else None
        for number in range(1, config.rounds + 1):
            lr_factor = config.later_rounds_lr_factor if number > 1 else 1.0
            shared: dict[str, Any] = {"init": latest, "lr_factor": lr_factor, "published": self.published}
            stages += [path_stage(f"r{number}-{path}", path, config, **shared) for path in config.paths]
            paths = tuple(f"r{number}-{path}" for path in config.paths)
            prototypes = f"r{number}-prototypes" if config.distillation.prototypes else None
            if prototypes is not None:
                stages.append(prototype_stage(prototypes, paths, config.prototypes))
            init = latest if config.warm_start else None
            stages.append(self._distillation_stage(number, paths, prototypes, init))
            latest = f"r{number}-distill"
        return stages

    def _distillation_stage(
        self, number: int, paths: tuple[str, ...], prototypes: str | None, init: str | None
    ) -> TrainingStage:
        config = self.config.distillation

        def objective(student: Segmenter, inputs: StageInputs) -> Distillation:
            return Distillation(
                student,
                teachers_of(inputs, paths, prototypes),
                augmentation=self.config.augmentation,
                vertical_blur=not self.published,
                use_missing_prototypes=self.published,
                **config.model_dump(exclude={"prototypes", "distort_source", "student"}),
            )

        # The next round's paths start from a network of their own size: only the last student may have another one.
        network = config.student if number == self.config.rounds else None
        init = init if network is None else None
        settings = self.config.model_dump(mode="json", include={"distillation", "augmentation"})
        del settings["distillation"]["student"]  # the network is a part of every training stage's identity
        return TrainingStage(
            name=f"r{number}-distill",
            kind="distillation" if network is None else "student distillation",
            inputs=tuple(name for name in (init, *paths, prototypes) if name is not None),
            settings=settings,
            stream=f"r{number}-distil",  # the stage's name before it was renamed: the same draws as then
            objective=objective,
            init=init,
            distort_source=config.distort_source,
            teacher_passes=len(paths),
            network=None if network is None else network.model_dump(exclude_unset=True),
            network_key="distillation.student",
        )
