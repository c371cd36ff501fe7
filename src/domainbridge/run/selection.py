"""Which stage's model is the run's: the last one's, or the best by a score that needs no label."""

from collections.abc import Sequence
from pathlib import Path

from domainbridge.config.schema import Recipe
from domainbridge.run.graph import Node, final_stage
from domainbridge.run.label_free import kept_label_free

__all__ = ["LESS_IS_BETTER", "candidates", "describe_selection", "selected_stage"]

LESS_IS_BETTER = ("entropy", "class_shift")
"""Scores of which a small value is the better one."""


def candidates(nodes: Sequence[Node]) -> list[str]:
    """The stages that a score may choose from: training stages of the last one's kind, e.g. each round's student."""
    kind = next(node.spec.kind for node in nodes if node.name == final_stage(nodes))
    return [node.name for node in nodes if node.training is not None and node.spec.kind == kind]


def selected_stage(nodes: Sequence[Node], recipe: Recipe, folder: Path) -> str:
    """The stage whose model is the run's; the last one until all candidates have their score."""
    values = _values(nodes, recipe, folder)
    known = {name: value for name, value in values.items() if value is not None}
    if len(known) < len(values) or not known:
        return final_stage(nodes)
    return max(reversed(known), key=lambda name: known[name])  # of equal ones the last


def describe_selection(nodes: Sequence[Node], recipe: Recipe, folder: Path) -> str:
    """A sentence for a plan."""
    if recipe.selection == "last":
        return f"final model: that of {final_stage(nodes)}, the last stage (selection: last)"
    shown = [
        f"{name} {'not scored yet' if value is None else f'{abs(value):.1f}'}"
        for name, value in _values(nodes, recipe, folder).items()
    ]
    order = "least" if recipe.selection in LESS_IS_BETTER else "largest"
    return f"final model: that with the {order} {recipe.selection} (selection) of {', '.join(shown)}"


def _values(nodes: Sequence[Node], recipe: Recipe, folder: Path) -> dict[str, float | None]:
    """By candidate, the mean of the score over the targets, more is better; None without it."""
    if recipe.selection == "last":
        return {}
    named = {node.name: node for node in nodes}
    sign = -1 if recipe.selection in LESS_IS_BETTER else 1
    values: dict[str, float | None] = {}
    for name in candidates(nodes):
        targets = kept_label_free(named[name], nodes, recipe, folder) or {}
        scores = [each[recipe.selection] for each in targets.values() if recipe.selection in each]
        complete = bool(scores) and len(scores) == len(targets)
        values[name] = sign * sum(scores) / len(scores) if complete else None
    return values
