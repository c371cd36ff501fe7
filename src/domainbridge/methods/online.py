"""DDB in one stage: the paths, their prototypes and the distillation advance together (docs/methods.md).

Each path has a student and an EMA teacher, as in step 1. An EMA teacher's output on the clean target image serves three
times: as pseudo-label of its path, for the path's prototypes, and as a part of the ensemble that a further student, the
result, is distilled from. No network waits for the end of another one's training, so there is no second round.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.methods.base import StageInputs, StageSpec, TrainingStage, register_method
from domainbridge.methods.ddb import PathKeys, path_stage
from domainbridge.methods.distillation import Distillation, EnsembleConfig
from domainbridge.methods.prototypes import PrototypeBank, RunningPrototypesConfig, empty_bank, moved_bank
from domainbridge.methods.self_training import SelfTraining
from domainbridge.methods.source_only import baseline_stages
from domainbridge.models.segmenter import Segmentation, Segmenter
from domainbridge.ops.upsample import upsample
from domainbridge.types import Batch

__all__ = ["OnlineConfig", "OnlineDDB", "OnlineDDBConfig", "OnlineDistillation"]


class OnlineConfig(RunningPrototypesConfig):
    """Prototypes and distillation beside the paths."""

    distill_after: int = Field(
        1500, ge=0, le=10**9, description="steps before the target loss of the distilled student begins"
    )


class OnlineDistillation(Distillation):
    """The objective: the losses of each path, then those of the distilled student.

    Attributes:
        parts: the paths' objectives, whose students train too.
        banks: prototypes of each path.
    """

    def __init__(
        self,
        student: Segmenter,
        paths: Mapping[str, SelfTraining],
        *,
        prototypes: bool = True,
        distill_after: int = 1500,
        min_pixels: int = 10,
        max_count: int = 200,
        mean_over_devices: Callable[[Tensor], Tensor] | None = None,
        **distillation: Any,
    ) -> None:
        """Defaults are those of the recipe.

        Args:
            student: the network that is distilled and kept.
            paths: name -> objective of a path, with a student of its own.
            prototypes: False: the plain mean of the teachers.
            distill_after: steps without the target loss of the student.
            min_pixels: a class with fewer predicted pixels in a crop does not count.
            max_count: cap of the running mean's count of steps.
            mean_over_devices: mean of a tensor over the devices that share a batch; None for one device.
            distillation: further arguments of :class:`Distillation`.
        """
        super().__init__(student, (), **distillation)
        self.paths = dict(paths)
        self.num_losses = 2 + sum(path.num_losses for path in paths.values())
        self.uses_prototypes, self.distill_after = prototypes, distill_after
        self.moved = partial(
            moved_bank, min_pixels=min_pixels, max_count=max_count, mean_over_devices=mean_over_devices
        )
        classifier = student.head.classifier
        shape = (classifier.out_channels, classifier.in_channels)
        self.banks = {name: empty_bank(*shape, student.mean.device) for name in paths}
        self.distills = False
        self._outputs: list[tuple[Segmentation, PrototypeBank | None]] = []

    @property
    def parts(self) -> tuple[SelfTraining, ...]:
        """See above."""
        return tuple(self.paths.values())

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """The distilled student, then student and teacher of each path."""
        return self.student, *(network for path in self.parts for network in path.networks)

    def before_step(self, step: int) -> None:
        """Update the EMA teachers; see whether the distilled student's target loss counts."""
        for path in self.parts:
            path.before_step(step)
        self.distills = step >= self.distill_after

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """``PATH_source`` and ``PATH_bridged`` of each path, then ``source`` and ``target``."""
        self._outputs, shares = [], []
        for name, path in self.paths.items():
            output = path.teacher.output(batch.target_image, batch.target_domain)
            pseudo = path.pseudo_label_of(upsample(output.logits.float(), _size(batch.target_image)))
            for loss, value in path.student_losses(batch, pseudo, generator):
                yield f"{name}_{loss}", value
            shares.append(pseudo.share)
            if self.uses_prototypes:
                self.banks[name] = self.moved(self.banks[name], output, _size(batch.target_image))
            self._outputs.append((output, self.banks[name] if self.uses_prototypes else None))
        for loss, value in super().losses(batch, generator):
            yield loss, value if loss == "source" or self.distills else 0 * value
        self._outputs = []
        present = torch.stack([bank.present.float().mean() for bank in self.banks.values()]).mean()
        self.metrics = {"pseudo_label_share": torch.stack(shares).mean(), "prototype_share": present}

    def teacher_outputs(self, image: Tensor) -> list[tuple[Segmentation, PrototypeBank | None]]:
        """The EMA teachers' outputs of this step, which the paths' pseudo-labels come from too."""
        return self._outputs

    def state_dict(self) -> dict[str, Tensor]:
        """Student and teacher of each path, and the prototypes."""
        state: dict[str, Tensor] = {}
        for name, path in self.paths.items():
            networks = {"student": path.teacher.student.state_dict(), "teacher": path.state_dict()}
            for network, tensors in networks.items():
                state |= {f"{name}.{network}.{key}": value for key, value in tensors.items()}
            state |= {f"{name}.vectors": self.banks[name].vectors, f"{name}.counts": self.banks[name].counts}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put all of them back."""
        for name, path in self.paths.items():
            path.teacher.student.load_state_dict(_below(state, f"{name}.student."))
            path.load_state_dict(_below(state, f"{name}.teacher."))
            device = self.banks[name].vectors.device
            self.banks[name] = PrototypeBank(state[f"{name}.vectors"].to(device), state[f"{name}.counts"].to(device))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


class OnlineDDBConfig(PathKeys):
    """Keys of `method: ddb-online`."""

    online: OnlineConfig = OnlineConfig()
    distillation: EnsembleConfig = EnsembleConfig()


@register_method("ddb-online")
class OnlineDDB:
    """The paths, prototypes and distillation of DDB in one stage."""

    config_class: ClassVar[type[Section]] = OnlineDDBConfig
    stage_names = ("source-only", "ddb-online")

    def __init__(self, config: OnlineDDBConfig, *, published: bool) -> None:
        self.config, self.published = config, published

    def stages(self) -> list[StageSpec]:
        """The baselines that the recipe asks for, then the stage. All networks of the stage have the same start."""
        config = self.config
        init = "source-only" if config.warm_start else None
        shared: dict[str, Any] = {"init": init, "published": self.published}
        paths: dict[str, TrainingStage] = {path: path_stage(path, path, config, **shared) for path in config.paths}
        settings: dict[str, Any] = {}
        for path in paths.values():
            settings |= path.settings
        settings |= config.model_dump(mode="json", include={"paths", "online", "distillation"})
        return [
            *baseline_stages(config),
            TrainingStage(
                name="ddb-online",
                kind="ddb-online",
                inputs=(init,) if init is not None else (),
                settings=settings,
                objective=lambda student, inputs: self._objective(student, inputs, paths),
                init=init,
                distort_source=config.distillation.distort_source,
                student_passes=2 + sum(path.student_passes for path in paths.values()),
                teacher_passes=len(paths),
                ema_teachers=len(paths),
                students=1 + len(paths),
                least_steps=(config.online.distill_after, "online.distill_after"),
            ),
        ]

    def _objective(
        self, student: Segmenter, inputs: StageInputs, paths: Mapping[str, TrainingStage]
    ) -> OnlineDistillation:
        config, objectives = self.config, {}
        for name, path in paths.items():
            objectives[name] = path.objective(copy.deepcopy(student), inputs)
            assert isinstance(objectives[name], SelfTraining)
        return OnlineDistillation(
            student,
            cast(dict[str, SelfTraining], objectives),
            augmentation=config.augmentation,
            vertical_blur=not self.published,
            mean_over_devices=inputs.mean_over_devices,
            **config.online.model_dump(),
            **config.distillation.model_dump(exclude={"distort_source"}),
        )
