"""What the two paths of a round say differently: how many pixels, and which pairs of classes."""

import re
from dataclasses import dataclass

import numpy as np

from domainbridge.report.run_facts import RunFacts, StageFacts

__all__ = ["Disagreement", "disagreements", "two_paths"]

_PATH = re.compile(r"(r\d+)-(cut|class)(?:-extended)?")
_MOST_PAIRS = 8


@dataclass(frozen=True)
class Disagreement:
    """Of the two paths on one target, counted on reduced class maps.

    Attributes:
        target: name.
        paths: the two stages.
        share: of the pixels on which the classes differ, 0 .. 1.
        pairs: (class of the first path, class of the second, share of the pixels), the commonest first.
        example: index of the image with the largest share of differing pixels.
        example_share: its share.
        images: how many class maps were compared.
    """

    target: str
    paths: tuple[str, str]
    share: float
    pairs: tuple[tuple[str, str, float], ...]
    example: int
    example_share: float
    images: int


def two_paths(run: RunFacts) -> tuple[StageFacts, StageFacts] | None:
    """The paths of the latest round in which both predicted, extensions in their place: CutMix first."""
    rounds: dict[str, dict[str, StageFacts]] = {}
    for stage in run.predicted_stages:
        match = _PATH.fullmatch(stage.name)
        if match is not None and stage.images is not None:
            rounds.setdefault(match[1], {})[match[2]] = stage
    complete = [paths for paths in rounds.values() if len(paths) == 2]
    return (complete[-1]["cut"], complete[-1]["class"]) if complete else None


def disagreements(run: RunFacts) -> list[Disagreement]:
    """Of the latest round, one per target with class maps of both paths."""
    paths = two_paths(run)
    if paths is None:
        return []
    results = [_compared(*paths, target) for target in run.targets]
    return [result for result in results if result is not None]


def _compared(one: StageFacts, other: StageFacts, target: str) -> Disagreement | None:
    first, second = one.counts(target), other.counts(target)
    if first is None or second is None or one.images is None or first.names != second.names:
        return None
    classes = (*one.images.classes, "no class")
    size = len(classes)
    pairs = np.zeros(size * size, np.int64)
    shares: dict[int, float] = {}
    for index, left in first.maps.items():
        right = second.maps.get(index)
        if right is not None and right.shape == left.shape:
            cells = np.minimum(left, size - 1).astype(np.int64) * size + np.minimum(right, size - 1)
            pairs += np.bincount(cells.ravel(), minlength=size * size)
            shares[index] = float((left != right).mean())
    if not shares:
        return None
    table = pairs.reshape(size, size) / pairs.sum()
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None, kind="stable")[:_MOST_PAIRS]
    named = [(classes[cell // size], classes[cell % size], float(table.flat[cell])) for cell in order.tolist()]
    example = max(shares, key=lambda index: shares[index])
    return Disagreement(
        target,
        (one.name, other.name),
        float(table.sum()),
        tuple(pair for pair in named if pair[2] > 0),
        example,
        shares[example],
        len(shares),
    )
