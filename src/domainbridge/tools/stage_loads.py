"""What a step of each training stage costs: one network's costs, counted once for all stages that share them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domainbridge.config.schema import Recipe
from domainbridge.config.training import TrainingConfig
from domainbridge.methods.base import StageSpec, TrainingStage
from domainbridge.tools.costs import Costs, costs_of_stage

__all__ = ["StageLoad", "StageToDo", "stage_loads"]


class StageToDo(Protocol):
    """What an estimate needs of a stage."""

    @property
    def name(self) -> str:
        """Of the stage."""
        ...

    @property
    def spec(self) -> StageSpec:
        """The stage."""
        ...

    @property
    def training(self) -> TrainingConfig | None:
        """Its settings of `training`; None for a stage that does not train."""
        ...

    @property
    def steps(self) -> int | None:
        """Steps or batches, where known."""
        ...


@dataclass(frozen=True)
class StageLoad:
    """A training stage with its costs.

    Attributes:
        stage: that trains.
        training: its settings.
        costs: of one process's rows of a step.
    """

    stage: TrainingStage
    training: TrainingConfig
    costs: Costs

    @property
    def memory(self) -> int:
        """Bytes at the peak of a step."""
        return self.costs.memory(self.stage)

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return self.costs.checkpoint(self.stage)

    @property
    def operations(self) -> int:
        """Floating point operations of a step."""
        return self.costs.step_operations(self.stage)


def stage_loads(recipe: Recipe, stages: Sequence[StageToDo], processes: int = 1) -> list[StageLoad]:
    """The training stages among ``stages``, one process's rows of them; equal costs are counted once.

    Args:
        recipe: complete.
        stages: in their order.
        processes: that share the rows of a step, one device each.

    Raises:
        ModelError: as for :func:`domainbridge.tools.costs.costs_of`.
        RecipeError: likewise.
    """
    counted: dict[tuple[object, ...], Costs] = {}
    loads = []
    for item in stages:
        if item.training is not None and isinstance(item.spec, TrainingStage):
            t = item.training.model_copy(update={"batch_size": -(-item.training.batch_size // processes)})
            network = item.spec.name if item.spec.network is not None else None
            lora = (t.lora_rank, t.lora_targets) if t.trunk == "lora" else ()
            key = (
                network,
                t.batch_size,
                t.gradient_accumulation_steps,
                t.precision,
                t.activation_checkpointing,
                t.trunk,
                lora,
            )
            counted[key] = counted.get(key) or costs_of_stage(recipe, item.spec, t)
            loads.append(StageLoad(item.spec, t, counted[key]))
    return loads
