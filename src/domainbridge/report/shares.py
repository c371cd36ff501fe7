"""Shares of the classes among the predicted pixels, and classes that collapsed."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainbridge.report.run_facts import RunFacts, StageFacts

__all__ = ["Collapse", "TargetShares", "collapses", "target_shares"]

_NEAR_ZERO = 1 / 20
"""A class is near 0 below this part of the share that it should have."""
_NOTABLE = 0.002
"""Least share of a class in predictions of source-only, or in labels, from which its absence is told."""
_NOTABLE_IN_SOURCE = 0.01
"""The same of the source's labels: the target may have other proportions."""
_SWALLOWS, _TIMES = 0.8, 1.5
"""A class swallows the image from this share on, if that is so many times what it should have ..."""
_SWALLOWS_ALONE = 0.95
"""... or from this one, where nothing says what it should have."""


@dataclass(frozen=True)
class TargetShares:
    """Shares of the classes on a target's images; each (K,), 0 .. 1.

    Attributes:
        target: name.
        classes, colors: of the space of the scores.
        stages: predicted share by stage.
        labels: of the labels; None for a target without labels.
        source: of the sources' labels; None when they were not counted or have other classes.
        images: how many images.
        total: images of the set.
    """

    target: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    stages: dict[str, NDArray[np.float64]]
    labels: NDArray[np.float64] | None
    source: NDArray[np.float64] | None
    images: int
    total: int


@dataclass(frozen=True)
class Collapse:
    """A class that vanished or that swallows the image.

    Attributes:
        kind: ``vanished`` against source-only, ``swallows`` the image, or ``never`` predicted by source-only either.
        stage, target, name: where, and which class.
        share: predicted, 0 .. 1.
        expected: the share that it should have, 0 .. 1; None when unknown.
        evidence: where that comes from: source-only, labels, source.
    """

    kind: Literal["vanished", "swallows", "never"]
    stage: str
    target: str
    name: str
    share: float
    expected: float | None
    evidence: str


def target_shares(run: RunFacts, target: str) -> TargetShares | None:
    """The shares of every stage on a target; None when no counts were kept."""
    stages = [stage for stage in run.predicted_stages if stage.counts(target) is not None]
    if not stages or stages[0].images is None:
        return None
    counts, space = stages[-1].counts(target), stages[-1].images
    assert counts is not None
    assert space is not None
    same = [stage for stage in stages if stage.images is not None and stage.images.classes == space.classes]
    return TargetShares(
        target,
        space.classes,
        space.colors,
        {stage.name: _predicted(stage, target) for stage in same},
        _normalized(counts.counts[:, :-1].sum((0, 2))) if counts.labeled else None,
        _source(run, space.classes),
        len(counts.names),
        counts.total,
    )


def collapses(shares: TargetShares, stage: str, baseline: str | None) -> list[Collapse]:
    """What collapsed in a stage's predictions, the largest loss of share first.

    Args:
        shares: of the target.
        stage: whose predictions.
        baseline: the source-only stage, if there is one.
    """
    predicted = shares.stages[stage]
    before = shares.stages.get(baseline) if baseline not in (None, stage) else None
    result = []
    for number, name in enumerate(shares.classes):
        share = float(predicted[number])
        known = {
            "source-only": None if before is None else float(before[number]),
            "labels": None if shares.labels is None else float(shares.labels[number]),
            "source": None if shares.source is None else float(shares.source[number]),
        }
        kind, evidence = _judged(share, known)
        if kind is not None:
            result.append(Collapse(kind, stage, shares.target, name, share, known.get(evidence), evidence))
    return sorted(result, key=lambda item: (item.kind != "swallows", -(item.expected or 1)))


def _judged(
    share: float, known: dict[str, float | None]
) -> tuple[Literal["vanished", "swallows", "never"] | None, str]:
    """(what happened to a class, where the expectation comes from)."""
    least = {"source-only": _NOTABLE, "labels": _NOTABLE, "source": _NOTABLE_IN_SOURCE}
    target_says = [value for key in ("source-only", "labels") if (value := known[key]) is not None]
    if share >= _SWALLOWS and target_says and share >= _TIMES * max(target_says):
        return "swallows", "labels" if known["labels"] is not None else "source-only"
    if share >= _SWALLOWS_ALONE and not target_says:
        return "swallows", "source"
    for key, value in known.items():
        if value is not None and value >= least[key] and share < _NEAR_ZERO * value:
            return ("vanished" if key == "source-only" else "never"), key
    return None, ""


def _predicted(stage: StageFacts, target: str) -> NDArray[np.float64]:
    counts = stage.counts(target)
    assert counts is not None
    return _normalized(counts.counts.sum((0, 1))[:-1])


def _source(run: RunFacts, classes: tuple[str, ...]) -> NDArray[np.float64] | None:
    if set(run.source_pixels) != set(classes):
        return None
    return _normalized(np.array([run.source_pixels[name] for name in classes], np.int64))


def _normalized(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts / max(int(counts.sum()), 1)
