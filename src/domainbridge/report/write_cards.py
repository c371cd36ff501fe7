"""Writing model cards: of every stage's model and of the run's, after each stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from domainbridge.models.card_file import write_card
from domainbridge.models.model_folder import DESCRIPTION
from domainbridge.report.model_card import plain_card, run_card
from domainbridge.report.run_facts import read_run
from domainbridge.run.callbacks.base import NullCallback

if TYPE_CHECKING:
    from domainbridge.config.schema import Recipe
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results

__all__ = ["CardCallback", "card_of", "write_run_cards"]


def write_run_cards(folder: Path, only: str | None = None) -> list[str]:
    """Write the cards of a run folder's models; cards that somebody edited stay.

    Args:
        folder: of the run.
        only: name of the one stage whose card is written; None: all, and the card of the run's model.

    Returns:
        A sentence for every card that was left alone.

    Raises:
        RunFolderError: no run folder.
    """
    run = read_run(folder)
    models = {folder / stage / "model": stage for stage in run.stages if only in (None, stage)}
    if only is None and run.finished:
        models[folder / "model"] = run.final
    notes = [
        write_card(model, run_card(run, stage, model))
        for model, stage in models.items()
        if (model / DESCRIPTION).is_file()
    ]
    return [note for note in notes if note is not None]


def card_of(model: Path) -> str:
    """The card for a model folder: of the run that the folder is part of, else a plain one.

    Raises:
        ModelError: no model folder.
    """
    place = model.absolute()
    for folder, stage in ((place.parent, None), (place.parent.parent, place.parent.name)):
        if place.name == "model" and (folder / "results.json").is_file():
            run = read_run(folder)
            chosen = run.final if stage is None else stage
            if chosen in run.stages:
                return run_card(run, chosen, model)
    return plain_card(model, place.name, "Data, method and scores of this model were not recorded.")


class CardCallback(NullCallback):
    """Writes a stage's card when the stage is scored, and all cards at the end of a run.

    Args:
        followers: told of every edited card that was left alone.
    """

    def __init__(self, followers: Sequence[NullCallback] = ()) -> None:
        self.folder, self.followers = Path(), followers

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Remember the folder."""
        self.folder = folder

    def stage_ends(self, node: "Node", results: "Results") -> None:
        """Write the stage's card; what was left alone is said at the end of the run."""
        write_run_cards(self.folder, only=node.name)

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """Write all cards: test images score a stage after its end, and the run's model is there now."""
        if results.stages:
            for note in write_run_cards(self.folder):
                for follower in self.followers:
                    follower.message(f"note: {note}")
