"""The words that methods and the engine share: an objective, a stage as a value, a method.

A method is a function from its configuration to a list of :class:`StageSpec`. Planning, hashing, resuming, estimating
and running work on that list and know no method by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field, model_validator
from torch import Tensor

from domainbridge.config.base import Section
from domainbridge.methods.prototypes import PrototypeBank, PrototypesConfig
from domainbridge.models.segmenter import Segmenter
from domainbridge.ops.losses import PixelLoss
from domainbridge.registry import Registered, Registry
from domainbridge.types import Batch

__all__ = [
    "METHODS",
    "AdaBNStage",
    "Method",
    "MethodConfig",
    "ModelStage",
    "Objective",
    "PixelObjective",
    "PrototypeStage",
    "StageInputs",
    "StageSpec",
    "TrainingStage",
    "register_method",
    "trained_objectives",
]


class Objective(Protocol):
    """The losses of one training stage. The loop calls ``backward`` and steps; an objective does neither.

    Attributes:
        student: the network that is optimized and that the stage keeps.
        num_losses: number of losses that ``losses`` yields, each after one forward pass of the student.
        metrics: named scalars of the latest batch for logs, e.g. the pseudo-label share; on the device.
    """

    student: Segmenter
    num_losses: int
    metrics: Mapping[str, Tensor]

    @property
    def networks(self) -> tuple[Segmenter, ...]:
        """All networks that run in a step, the student first."""
        ...

    def before_step(self, step: int) -> None:
        """Follow the step count, e.g. update an EMA; called before ``losses`` of step 0, 1, ..."""
        ...

    def losses(self, batch: Batch, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
        """Named scalar losses of a batch, to be summed; every draw comes from ``generator`` (on the CPU).

        The losses come one after the other. The loop calls ``backward`` on each before the next forward pass, so
        autograd keeps the activations of one forward pass at a time.
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything beside the student that must survive a restart."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The opposite of ``state_dict``."""
        ...


@runtime_checkable
class PixelObjective(Protocol):
    """An objective that learns from labels with ``pixel_loss``, which the keys about the cross entropy replace."""

    pixel_loss: PixelLoss


def trained_objectives(objective: Objective) -> tuple[Objective, ...]:
    """The objective, then those of further networks that train in the same steps: its attribute ``parts``, if any.

    The optimizer moves the students of all of them; the stage keeps the first one. Their losses are among those that
    the objective yields, and their state is part of its ``state_dict``.
    """
    return (objective, *getattr(objective, "parts", ()))


class StageInputs(Protocol):
    """Results of earlier stages, for the objective of a later one."""

    def model(self, stage: str) -> Segmenter:
        """The finished student of a stage, on the device."""
        ...

    def prototypes(self, stage: str, student: str) -> PrototypeBank:
        """The prototypes that a :class:`PrototypeStage` collected for one of its students, on the device."""
        ...

    def mean_over_devices(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all devices that share a batch."""
        ...


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of a run, as a value.

    Attributes:
        name: name of the stage and of its folder, e.g. ``r1-cut``.
        kind: kind of stage in the words of a plan, e.g. ``self-training``; stages of one kind cost the same per step.
        inputs: stages that must be done before.
        settings: every value of the method's configuration that the result depends on, as plain JSON values.
        stream: name of the stage's random streams; default: ``name``. A renamed stage keeps its stream, so that its
            results stay the same.
        baseline: whether the stage is compared with the result: then the ``test`` images score its model too.
        extends: stage that this one goes on from with more steps (``stages.NAME.extend``); None for all others.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream: str = ""
    baseline: bool = False
    extends: str | None = None

    def __post_init__(self) -> None:
        if not self.stream:
            object.__setattr__(self, "stream", self.name)


@dataclass(frozen=True, kw_only=True)
class TrainingStage(StageSpec):
    """A stage that trains a student and keeps its model.

    Attributes:
        objective: builds the objective around a student, from earlier results.
        init: stage whose student is the start; None: initial weights.
        teacher_models: model folders of the teachers, where these are finished models, for estimates.
        lr_factor: factor of ``training.learning_rate``, unless the recipe sets the stage's own.
        distort_source: photometric distortion of the source images.
        uses_target: whether the stage sees target images; if not, ``training.adapt_batchnorm`` does not apply.
        supervision: whose labels the stage learns from: the sources', or the targets' own (section ``oracle``), on
            which no other stage may depend; "none": a batch's source is the target crop with label 255.
        settings_of: stage whose section in the recipe's ``stages`` holds here too.
        student_passes: forward and backward passes of the student per batch; for estimates of time and memory.
        teacher_passes: forward passes of teachers per batch, one per teacher; likewise.
        students: networks that train together in this stage, the one that is kept included; likewise.
        least_steps: (steps, key): a stage with no more steps would leave a part of its objective out, because of the
            key.
        network: keys of ``model`` with other values for the student of this stage; None: the recipe's network. Such a
            student starts from initial weights, and no stage may start from it.
        network_key: key of the recipe that ``network`` comes from, for messages.
        ema_teachers: those of the teachers that average the student; likewise: what does not train is not copied.
        cross_entropy: whether one of the losses is a cross entropy, which the keys about it change.
    """

    objective: Callable[[Segmenter, StageInputs], Objective]
    init: str | None = None
    teacher_models: tuple[str, ...] = ()
    lr_factor: float = 1.0
    distort_source: bool = False
    uses_target: bool = True
    supervision: Literal["source", "target", "none"] = "source"
    settings_of: str | None = None
    student_passes: int = 2
    teacher_passes: int = 0
    students: int = 1
    least_steps: tuple[int, str] | None = None
    network: Mapping[str, Any] | None = None
    network_key: str = ""
    ema_teachers: int = 0
    cross_entropy: bool = True


@dataclass(frozen=True, kw_only=True)
class PrototypeStage(StageSpec):
    """A stage that collects class prototypes of finished students on target crops.

    Attributes:
        config: passes and counts.
        students: stages whose students are asked, one prototype bank each.
    """

    config: PrototypesConfig
    students: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AdaBNStage(StageSpec):
    """A stage that keeps a finished student with BatchNorm statistics of target crops; nothing is trained.

    Attributes:
        student: stage whose student is taken.
    """

    student: str


@dataclass(frozen=True, kw_only=True)
class ModelStage(StageSpec):
    """A stage that takes a finished model into the run; nothing is trained. Its scores are there to compare with.

    Attributes:
        model: path to the model folder, as the recipe gives it. Its content is part of the stage's identity.
        key: key of the recipe that names the folder, for messages.
    """

    model: str
    key: str


class MethodConfig(Section):
    """Keys of a recipe that every method of ours has; an own method may inherit them."""

    source_only: bool = Field(False, description="train the baseline without adaptation too, stage source-only")
    adabn: bool = Field(
        False,
        description="score source-only with BatchNorm statistics of target crops too (AdaBN, arXiv 1603.04779), stage "
        "adabn: no training; several targets: one average over crops of all",
    )
    warm_start: bool = Field(
        False,
        description="a stage that would start from initial weights (round 1's paths, every distillation) starts from "
        "the latest student instead: source-only's, later the last round's; for short schedules",
    )

    @model_validator(mode="after")
    def _needs_of_source_only(self) -> "MethodConfig":
        if self.warm_start and not self.source_only:
            raise ValueError("warm_start: starts from the source-only student, so source_only must be true")
        if self.adabn and not self.source_only:
            raise ValueError("adabn: takes the source-only student; set source_only: true, or adabn: false")
        return self


class Method(Protocol):
    """A method: its configuration, and the stages that follow from it.

    Attributes:
        config_class: keys that the method adds to a recipe.
        stage_names: training stages that a recipe's ``stages`` may name, also those that this configuration switches
            off.

    A method that can do without labeled images has a class attribute ``sources``: "optional", or "none" for one that
    uses none.
    """

    config_class: ClassVar[type[Section]]

    def __init__(self, config: Any, *, published: bool) -> None:
        """Keep the configuration; ``published``: with the quirks of the authors' code (``fidelity: published``)."""
        ...

    @property
    def stage_names(self) -> tuple[str, ...]:
        """See above."""
        ...

    def stages(self) -> list[StageSpec]:
        """The stages in an order in which they can run; the last training stage's student is the result.

        The engine adds stage ``oracle`` after them where the recipe asks for the stage.
        """
        ...


METHODS: Registry[type[Method]] = Registry("method", "domainbridge.methods", "domainbridge.methods")


def register_method(name: str) -> Callable[[Registered], Registered]:
    """Class decorator: ``method: NAME`` in a recipe means this method.

    Another distribution also names its module as an entry point of the group ``domainbridge.methods``.
    """
    return METHODS.register(name)
