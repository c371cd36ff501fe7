"""Stages that train another network than the recipe's section ``model``: a small student of large teachers."""

from collections.abc import Iterable

from pydantic import ValidationError

from domainbridge.config.schema import Recipe
from domainbridge.config.sections import NetworkConfig
from domainbridge.methods.base import StageSpec, TrainingStage

__all__ = ["problems_of_networks", "stage_recipe"]


def stage_recipe(recipe: Recipe, stage: StageSpec) -> Recipe:
    """The recipe with the network that a stage trains in the place of ``model``; the same recipe for most stages.

    A network of another kind does not start from the model of ``init``.
    """
    network = stage.network if isinstance(stage, TrainingStage) else None
    if network is None:
        return recipe
    model = recipe.model.model_dump()
    head = {**model["head"], **network.get("head", {})}
    network_config = NetworkConfig.model_validate({**model, **network, "head": head})
    return recipe.model_copy(update={"model": network_config, "init": None})


def problems_of_networks(recipe: Recipe, stages: Iterable[StageSpec]) -> list[str]:
    """What is wrong with the networks of such stages."""
    problems = []
    for stage in stages:
        if not isinstance(stage, TrainingStage) or stage.network is None or stage.extends is not None:
            continue
        if "backbone" not in stage.network:
            problems.append(f"{stage.network_key}.backbone: missing; name the backbone of {stage.name}'s network")
        if "weights" not in stage.network and recipe.init is not None and recipe.model.weights != "none":
            problems.append(
                f"{stage.network_key}.weights: missing, and init takes the place of model.weights "
                f"({recipe.model.weights}); name the student's weights, or none"
            )
        elif "weights" not in stage.network and not recipe.model.weights.isidentifier():
            problems.append(
                f"{stage.network_key}.weights: missing, and model.weights ({recipe.model.weights}) is a file of "
                "another backbone; name the student's weights, or none"
            )
        try:
            stage_recipe(recipe, stage)
        except ValidationError as error:
            problems += [
                f"{stage.network_key}.{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
            ]
    return problems
