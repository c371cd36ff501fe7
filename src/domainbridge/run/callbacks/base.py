"""What may follow a run: callbacks, told of everything that happens in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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


def _told_to_each(event: str) -> "Callable[..., None]":
    """A method that passes its arguments on to each callback of a list."""

    def tell(self: "CallbackList", *arguments: Any, **named: Any) -> None:
        self._each(lambda callback: getattr(callback, event)(*arguments, **named))

    return tell


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

    run_begins = _told_to_each("run_begins")
    message = _told_to_each("message")
    stage_begins = _told_to_each("stage_begins")
    training_begins = _told_to_each("training_begins")
    progress = _told_to_each("progress")
    work_begins = _told_to_each("work_begins")
    advance = _told_to_each("advance")
    stage_scored = _told_to_each("stage_scored")
    stage_tested = _told_to_each("stage_tested")
    stage_examples = _told_to_each("stage_examples")
    stage_ends = _told_to_each("stage_ends")
    run_ends = _told_to_each("run_ends")
    close = _told_to_each("close")

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
