"""What may follow a run: callbacks, told of everything that happens in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from domainbridge.evaluation.confusion import Scores
from domainbridge.files import LOADER_ENDED
from domainbridge.registry import Registered, Registry
from domainbridge.training.loop import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from domainbridge.config.schema import Recipe
    from domainbridge.run.example_images import ExampleImages
    from domainbridge.run.graph import Node, PlannedStage
    from domainbridge.run.results import Results
    from domainbridge.run.work import Phase, Work

__all__ = ["CALLBACKS", "CallbackList", "NullCallback", "register_callback"]


class NullCallback:
    """Does nothing; base of all callbacks, which override what they need.

    Attributes:
        per_stage: the callback writes into the stage's folder only. Where stages train at the same time, each one's
            processes have such callbacks of their own; all others see the first stage only.
    """

    per_stage: ClassVar[bool] = False

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """The run folder exists; ``planned`` are the stages of this start."""

    def message(self, text: str) -> None:
        """A line for the user."""

    def stage_begins(self, planned: "PlannedStage") -> None:
        """A stage is about to run, or is skipped."""

    def training_begins(self, node: "Node", step: int) -> None:
        """A training stage goes on from ``step``: reports of later steps belong to an attempt that is repeated."""

    def progress(self, node: "Node", progress: Progress) -> None:
        """Steps of a stage were taken."""

    def work_begins(self, work: "Sequence[Work]") -> None:
        """What this start has to do, in order."""

    def advance(self, node: "Node", phase: "Phase", done: int) -> None:
        """So many units of a phase of a stage are done: steps, batches or images; called after each one."""

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """A stage's model has scores, new or kept, by target."""

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """The final model or a baseline has scores on ``test`` or held-out images, new or kept, by target."""

    def stage_examples(self, node: "Node", examples: "ExampleImages") -> None:
        """A stage's model has just been scored: images, predictions and labels for a panel."""

    def stage_ends(self, node: "Node", results: "Results") -> None:
        """A stage was carried out or scored in this start, and ``results.json`` has it."""

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """The run ends: finished, or stopped at a checkpoint. Not called after a failure."""

    def close(self) -> None:
        """Called last, also after a failure."""


class CallbackList(NullCallback):
    """Callbacks in a list. A callback that fails is reported once and left out from then on: it never stops a run."""

    def __init__(self, callbacks: Sequence[NullCallback]) -> None:
        self.callbacks = list(callbacks)

    def _each(self, call: "Callable[[NullCallback], None]") -> None:
        for callback in list(self.callbacks):
            try:
                call(callback)
            except Exception as error:  # of whatever kind: trackers are other people's code
                if LOADER_ENDED in str(error):  # raised by a signal handler, which may run in the middle of a callback
                    raise
                if callback not in self.callbacks:
                    continue
                self.callbacks.remove(callback)
                self.message(
                    f"note: {type(callback).__name__} failed and is left out from now on; the run goes on "
                    f"({type(error).__name__}: {error})"
                )

    def run_begins(self, recipe: "Recipe", folder: Path, planned: "Sequence[PlannedStage]") -> None:
        """Tell each."""
        self._each(lambda callback: callback.run_begins(recipe, folder, planned))

    def message(self, text: str) -> None:
        """Tell each."""
        self._each(lambda callback: callback.message(text))

    def stage_begins(self, planned: "PlannedStage") -> None:
        """Tell each."""
        self._each(lambda callback: callback.stage_begins(planned))

    def training_begins(self, node: "Node", step: int) -> None:
        """Tell each."""
        self._each(lambda callback: callback.training_begins(node, step))

    def progress(self, node: "Node", progress: Progress) -> None:
        """Tell each."""
        self._each(lambda callback: callback.progress(node, progress))

    def work_begins(self, work: "Sequence[Work]") -> None:
        """Tell each."""
        self._each(lambda callback: callback.work_begins(work))

    def advance(self, node: "Node", phase: "Phase", done: int) -> None:
        """Tell each."""
        self._each(lambda callback: callback.advance(node, phase, done))

    def stage_scored(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Tell each."""
        self._each(lambda callback: callback.stage_scored(node, targets))

    def stage_tested(self, node: "Node", targets: Mapping[str, Scores]) -> None:
        """Tell each."""
        self._each(lambda callback: callback.stage_tested(node, targets))

    def stage_examples(self, node: "Node", examples: "ExampleImages") -> None:
        """Tell each."""
        self._each(lambda callback: callback.stage_examples(node, examples))

    def stage_ends(self, node: "Node", results: "Results") -> None:
        """Tell each."""
        self._each(lambda callback: callback.stage_ends(node, results))

    def run_ends(self, results: "Results", *, finished: bool) -> None:
        """Tell each."""
        self._each(lambda callback: callback.run_ends(results, finished=finished))

    def close(self) -> None:
        """Tell each."""
        self._each(lambda callback: callback.close())

    @property
    def wants_examples(self) -> bool:
        """Whether any callback shows example images."""
        return any(type(callback).stage_examples is not NullCallback.stage_examples for callback in self.callbacks)


CALLBACKS: Registry[type[NullCallback]] = Registry(
    "runtime.callbacks", "domainbridge.run.callbacks", "domainbridge.callbacks"
)


def register_callback(name: str) -> "Callable[[Registered], Registered]":
    """Class decorator: ``runtime.callbacks: [NAME]`` in a recipe means this callback, made without arguments.

    Another distribution also names its module as an entry point of the group ``domainbridge.callbacks``.
    """
    return CALLBACKS.register(name)
