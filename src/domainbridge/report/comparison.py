"""Scores of every stage on every target with intervals, and the gains over source-only."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domainbridge.report.bootstrap import Interval, ScoreIntervals, bootstrap
from domainbridge.report.run_facts import RunFacts, StageFacts
from domainbridge.run.image_records import ImageCounts

__all__ = ["StageScore", "compare", "compare_tests", "included_classes", "same_images"]


@dataclass(frozen=True)
class StageScore:
    """Of one stage on one target.

    Attributes:
        stage, target: names.
        classes: names.
        scores: mIoU and IoU per class, in percent; without counts per image the intervals are NaN.
        gain: differences to source-only on the same images, in points; None for source-only itself and without it.
        images: how many were scored.
    """

    stage: str
    target: str
    classes: tuple[str, ...]
    scores: ScoreIntervals
    gain: ScoreIntervals | None
    images: int

    @property
    def clear_losses(self) -> list[tuple[str, Interval]]:
        """Classes that lost against source-only, the largest loss first: the whole interval is below 0.

        Without intervals: those that lost at least a point.
        """
        if self.gain is None:
            return []
        pairs = list(zip(self.classes, self.gain.iou, strict=True))
        lost = [(n, g) for n, g in pairs if (g.high if np.isfinite(g.high) else g.value + 1) < 0]
        return sorted(lost, key=lambda pair: pair[1].value)

    @property
    def largest_loss(self) -> tuple[str, Interval] | None:
        """The class that lost most, clear or not; None when none lost."""
        lost = [(n, g) for n, g in zip(self.classes, self.gain.iou, strict=True) if g.value < 0] if self.gain else []
        return min(lost, key=lambda pair: pair[1].value, default=None)


def compare(run: RunFacts) -> dict[str, dict[str, StageScore]]:
    """Target -> stage -> score, for every target with labels."""
    table: dict[str, dict[str, StageScore]] = {}
    for target in run.targets:
        row = {s.name: _score(run, s, target) for s in run.predicted_stages if target in s.scores}
        if row:
            table[target] = row
    return table


def compare_tests(run: RunFacts) -> dict[str, dict[str, StageScore]]:
    """The same of test images: target -> stage -> score."""
    stages = {name: replace(stage, scores=stage.tests, images=stage.test_images) for name, stage in run.stages.items()}
    return compare(replace(run, stages={name: stage for name, stage in stages.items() if stage.scores}))


def included_classes(stage: StageFacts, classes: tuple[str, ...]) -> NDArray[np.bool_]:
    """Which classes the mean counts."""
    left_out = stage.images.exclude_classes if stage.images is not None else ()
    return np.array([name not in left_out for name in classes], bool)


def same_images(one: ImageCounts, other: ImageCounts) -> bool:
    """Whether two stages were scored on the same images."""
    return one.names == other.names and one.counts.shape == other.counts.shape


def _score(run: RunFacts, stage: StageFacts, target: str) -> StageScore:
    scores, counts, baseline = stage.scores[target], stage.counts(target), run.baseline
    classes = tuple(scores.iou)
    if counts is None or not counts.labeled:
        plain = _plain(scores.miou, list(scores.iou.values()))
        return StageScore(stage.name, target, classes, plain, _plain_gain(run, stage, target), scores.images)
    included = included_classes(stage, classes)
    gain = None
    if baseline is not None and baseline.name != stage.name:
        before = baseline.counts(target)
        paired = before is not None and same_images(counts, before)
        gain = bootstrap(counts.counts, included, before.counts) if before is not None and paired else None
        gain = gain or _plain_gain(run, stage, target)
    return StageScore(stage.name, target, classes, bootstrap(counts.counts, included), gain, scores.images)


def _plain_gain(run: RunFacts, stage: StageFacts, target: str) -> ScoreIntervals | None:
    """Differences of the kept scores, without intervals."""
    baseline = run.baseline
    if baseline is None or baseline.name == stage.name or target not in baseline.scores:
        return None
    now, before = stage.scores[target], baseline.scores[target]
    iou = [_difference(value, before.iou.get(name)) for name, value in now.iou.items()]
    return _plain(_difference(now.miou, before.miou), iou)


def _difference(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before


def _plain(miou: float | None, iou: list[float | None]) -> ScoreIntervals:
    return ScoreIntervals(_alone(miou), tuple(_alone(value) for value in iou))


def _alone(value: float | None) -> Interval:
    nan = float("nan")
    return Interval(nan if value is None else value, nan, nan)
