"""What a stage's folder holds, and what a run does with it and why."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from domainbridge.files import read_json
from domainbridge.run.stage_files import CHECKPOINT, DONE, STARTED, damage

if TYPE_CHECKING:
    from domainbridge.run.graph import Node

__all__ = ["UNKNOWN_FILES", "StageState", "StageStatus", "status_of"]

UNKNOWN_FILES = "unknown"
"""In the place of the fingerprint of files that cannot be listed."""

_LARGEST = 1e15
"""Steps or seconds; NaN, infinity and more are no count."""


@dataclass(frozen=True)
class StageStatus:
    """What a run does with a stage, and why.

    Attributes:
        action: done = skip; resume = go on from its checkpoint; run = from its beginning.
        reason: for the user.
        replaces: whether the folder holds results of another configuration, which the run moves away with the folder.
        origin: the kept run folder that holds the results; None for the run folder itself.
    """

    action: Literal["done", "resume", "run"]
    reason: str
    replaces: bool = False
    origin: Path | None = None


@dataclass(frozen=True)
class StageState:
    """The contents of a stage's folder.

    Attributes:
        done: content of ``done.json``; None when it is missing or damaged.
        started: content of ``started.json``, likewise.
        damaged: names of the files that are there and cannot be used.
        has_results: whether the folder holds something that took time to compute.
        has_checkpoint: whether there is a ``state.pt``.
    """

    done: dict[str, Any] | None
    started: dict[str, Any] | None
    damaged: tuple[str, ...] = ()
    has_results: bool = False
    has_checkpoint: bool = False

    @classmethod
    def read(cls, folder: Path) -> "StageState":
        """Look into a stage's folder, which may be missing."""
        done = _checked(read_json(folder / DONE), "steps", "seconds")
        started = _checked(read_json(folder / STARTED), "step")
        contents = {DONE: done, STARTED: started}
        damaged = tuple(name for name, content in contents.items() if content is None and (folder / name).exists())
        checkpoint = (folder / CHECKPOINT).exists()
        return cls(done, started, damaged, (folder / DONE).exists() or checkpoint, checkpoint)


def status_of(node: "Node", folder: Path, kept: Sequence[Path], rerun: set[str]) -> StageStatus:
    """Decide about one stage.

    Args:
        node: the stage.
        folder: of the run.
        kept: folders of earlier runs, whose finished stages may be taken over; the newest first.
        rerun: names of the stages that run (again) before it.
    """
    state = StageState.read(folder / node.name)
    current = _usable(node, state)
    if current is not None:
        return current
    for other in kept:
        earlier = _usable(node, StageState.read(other / node.name))
        if earlier is not None and earlier.action == "done" and damage(node.spec, other / node.name) is None:
            return replace(earlier, reason=f"{earlier.reason}, from {other}", replaces=state.has_results, origin=other)
    return StageStatus("run", _why(node, state, rerun), replaces=state.has_results)


def _usable(node: "Node", state: StageState) -> StageStatus | None:
    """The status of results of exactly this stage; None for others."""
    if state.done is not None and _is_same(node, state.done):
        return StageStatus("done", f"{state.done['steps']} steps in {state.done['seconds']:.0f} s")
    if state.started is not None and _is_same(node, state.started):
        step = state.started["step"]
        if step == 0 or state.has_checkpoint:
            return StageStatus("resume", f"from step {step}")
    return None


def _is_same(node: "Node", old: Mapping[str, Any]) -> bool:
    return bool(old["fingerprint"] == node.fingerprint) and not _other_files(node, old)


def _other_files(node: "Node", old: Mapping[str, Any]) -> list[str]:
    """Backbones whose pretrained weights are another file than the one that the results began with.

    A file that is not known, then or now, is taken for the same.
    """
    earlier = old.get("pretrained")
    if not isinstance(earlier, Mapping):
        return []
    return [name for name, known in node.pretrained.items() if earlier.get(name, known) != known]


def _why(node: "Node", state: StageState, rerun: set[str]) -> str:
    """Why a stage runs from its beginning."""
    if state.damaged:
        return f"{' and '.join(state.damaged)} cannot be read"
    old = state.done or state.started
    if old is None:
        new = f"not done yet, goes on from {node.spec.extends}" if node.spec.extends else "not done yet"
        return f"{CHECKPOINT} without {STARTED}" if state.has_checkpoint else new
    if old["fingerprint"] == node.fingerprint:
        others = _other_files(node, old)
        return f"changed: file of pretrained {', '.join(others)}" if others else f"{CHECKPOINT} is missing"
    changes = _differences(old["values"], node.values)
    if changes:
        more = _more_steps(old["values"], node.values) if state.done is not None and len(changes) == 1 else 0
        hint = f" (stages.{node.name}.extend={more} goes on from what is done)" if more > 0 else ""
        return "changed: " + "; ".join(changes[:4]) + (" ..." if len(changes) > 4 else "") + hint
    inputs = [name for name in node.spec.inputs if name in rerun]
    return f"its input {' and '.join(inputs) or 'stage'} changed"


def _checked(content: dict[str, Any] | None, *numbers: str) -> dict[str, Any] | None:
    """The content if it has the form of a stage's identity with these numbers, else None."""
    if (
        content is None
        or not isinstance(content.get("fingerprint"), str)
        or not isinstance(content.get("values"), dict)
    ):
        return None
    return content if all(_is_count(content.get(name)) for name in numbers) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [*old, *(name for name in new if name not in old)]
        inner = [_differences(old.get(n), new.get(n), f"{key}.{n}" if key else str(n)) for n in names]
        return [line for lines in inner for line in lines]
    if old != new and key.endswith(".files"):  # two fingerprints, which say nothing to a reader
        if new == UNKNOWN_FILES:
            return [f"files of {key.removesuffix('.files')} (not compared: the data has problems)"]
        return [f"files of {key.removesuffix('.files')} (names, number or contents)"]
    return [] if old == new else [f"{key} {_short(old)} -> {_short(new)}"]


def _more_steps(old: Any, new: Any) -> int:
    """How many training steps the new values have more."""
    steps = [values.get("training", {}).get("steps", 0) for values in (old, new)]
    return int(steps[1] - steps[0]) if all(isinstance(each, int) for each in steps) else 0


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
