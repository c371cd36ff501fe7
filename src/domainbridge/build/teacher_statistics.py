"""Teacher statistics per target (``self_training.teacher_statistics``): one value for every target of the recipe."""

from collections.abc import Mapping

from domainbridge.config.schema import Recipe
from domainbridge.config.spelled import shown

__all__ = ["problems_of_teacher_statistics", "single_rows"]


def problems_of_teacher_statistics(recipe: Recipe) -> list[str]:
    """Targets without a value, and names that no target has."""
    given = _per_target(recipe)
    names = [target.name for target in recipe.targets]
    if given is None or set(given) == set(names):
        return []
    listed = ", ".join(shown(name) for name in given) or "nothing"
    return [
        f"self_training.teacher_statistics: values for {listed}; expected one for each target and no others: "
        f"{', '.join(names)}"
    ]


def single_rows(recipe: Recipe) -> bool:
    """Whether the teacher may normalize one row alone: a batch may have one row of a target with "batch" statistics."""
    given = _per_target(recipe)
    return given is not None and len(given) > 1 and "batch" in given.values()


def _per_target(recipe: Recipe) -> Mapping[str, str] | None:
    section = getattr(recipe, "self_training", None)  # methods without pseudo-labels have none
    given = getattr(section, "teacher_statistics", None)
    return given if isinstance(given, Mapping) else None
