"""What came out, in sentences: a collapse first, then whether adaptation helped, and which class paid."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from domainbridge.report.bootstrap import Interval
from domainbridge.report.comparison import StageScore, compare
from domainbridge.report.run_facts import BASELINE, RunFacts
from domainbridge.report.shares import Collapse, collapses, target_shares

__all__ = ["Sentence", "points", "verdict"]

Tone = Literal["bad", "good", "neutral"]
Table = dict[str, dict[str, StageScore]]
_MOST_NAMED = 5
"""Classes that a sentence names; further ones are counted."""
_WITHOUT_INTERVAL = 1.0
"""Points from which on a gain or a loss counts where no interval is known."""


@dataclass(frozen=True)
class Sentence:
    """One finding, for the first screen."""

    tone: Tone
    text: str


def verdict(run: RunFacts, table: Table | None = None) -> list[Sentence]:
    """The findings of a run, the worst first."""
    latest = run.latest
    if latest is None:
        return [Sentence("neutral", "No stage is scored so far.")]
    table = compare(run) if table is None else table
    collapsed: list[Collapse] = []
    for target in run.targets:
        shares = target_shares(run, target)
        if shares is not None and latest.name in shares.stages:
            collapsed += collapses(shares, latest.name, BASELINE if run.baseline is not None else None)
    never = [item for item in collapsed if item.kind == "never"]
    sentences = [_collapsed(item) for item in collapsed if item.kind != "never"]
    if not run.finished:
        text = f"The run is not finished: the figures here are those of {latest.name}, not of {run.final}."
        sentences.append(Sentence("neutral", text))
    for target in run.targets:
        score = table.get(target, {}).get(latest.name)
        sentences += [_no_labels(target)] if score is None else _gain(run, table, score)
    for target in dict.fromkeys(item.target for item in never):
        sentences.append(_never([item for item in never if item.target == target]))
    latest_scores = [row[latest.name].scores for row in table.values() if latest.name in row]
    if not all(np.isfinite(scores.miou.low) for scores in latest_scores):
        sentences.append(
            Sentence(
                "neutral",
                "No intervals: counts per image were not kept when these stages were scored. Delete evaluation.json in "
                "the stages' folders and start the run again; the stages are scored again and not trained again.",
            )
        )
    return sentences


def points(gain: Interval) -> str:
    """A difference in words, with its interval where one is known."""
    text = f"{gain.value:+.1f} points"
    return f"{text} (95 % interval {gain.low:+.1f} to {gain.high:+.1f})" if np.isfinite(gain.low) else text


def _gain(run: RunFacts, table: Table, score: StageScore) -> list[Sentence]:
    """Whether adaptation helped on a target with labels."""
    where = f"on {score.target}, {score.images} images"
    if run.latest is run.baseline:
        return [Sentence("neutral", f"Only {BASELINE} is scored so far: mIoU {score.scores.miou.value:.1f} % {where}.")]
    if run.baseline is None or score.gain is None:
        text = (
            f"mIoU of {score.stage} {where}: {score.scores.miou.value:.1f} %. The run has no stage {BASELINE} to "
            "compare with; source_only: true in the recipe trains one."
        )
        return [Sentence("neutral", text)]
    gain = score.gain.miou
    if not gain.known:
        return [Sentence("neutral", f"No class can be scored {where}.")]
    before = score.scores.miou.value - gain.value
    change = f"mIoU {before:.1f} % to {score.scores.miou.value:.1f} %, {points(gain)}"
    if not run.finished:
        return [Sentence("neutral", f"So far, {score.stage} {where}: {change}.")]
    low, high = (gain.low, gain.high) if np.isfinite(gain.low) else (gain.value, gain.value)
    edge = 0.0 if np.isfinite(gain.low) else _WITHOUT_INTERVAL
    if low > edge:
        return [Sentence("good", f"Adaptation helped {where}: {change}."), *_paid(score, always=False)]
    if high < -edge:
        text = f"Adaptation did not help, it hurt {where}: {change}."
        return [Sentence("bad", text), *_paid(score, always=True), *_best(table, score)]
    why = "the interval includes 0" if np.isfinite(gain.low) else "less than a point"
    text = f"Adaptation did not help clearly {where}: {change}; {why}."
    return [Sentence("bad", text), *_paid(score, always=True), *_best(table, score)]


def _best(table: Table, score: StageScore) -> list[Sentence]:
    """Another stage with a clear gain, where the latest model has none."""
    rivals = [other for other in table[score.target].values() if other.gain is not None and other.gain.miou.low > 0]
    best = max(rivals, key=lambda other: other.scores.miou.value, default=None)
    if best is None or best.gain is None or best.stage == score.stage:
        return []
    text = f"{best.stage} did better on {score.target}: mIoU {best.scores.miou.value:.1f} %, {points(best.gain.miou)}."
    return [Sentence("neutral", text)]


def _paid(score: StageScore, *, always: bool) -> list[Sentence]:
    """Which classes lost against source-only; with ``always`` also a class whose loss is not clear."""
    lost = score.clear_losses
    if lost:
        text = ", ".join(f"{name} {gain.value:+.1f}" for name, gain in lost[:_MOST_NAMED])
        more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
        return [Sentence("bad", f"Classes that paid on {score.target} (IoU, points): {text}{more}.")]
    largest = score.largest_loss
    if always and largest is not None:
        return [Sentence("neutral", f"The class that lost most on {score.target}: {largest[0]}, {points(largest[1])}.")]
    return []


def _no_labels(target: str) -> Sentence:
    return Sentence(
        "neutral",
        f"{target} has no labels: whether adaptation helped there cannot be measured. Look at the pictures and the "
        "class shares below, or label 20 to 50 images and name them in the recipe (targets: validation).",
    )


def _collapsed(item: Collapse) -> Sentence:
    known = "" if item.expected is None else f"; {_EVIDENCE[item.evidence]} {100 * item.expected:.1f} %"
    what = "swallows the images" if item.kind == "swallows" else "has vanished"
    text = f"Collapse on {item.target}: {item.name} {what}, {100 * item.share:.1f} % of the pixels{known}."
    return Sentence("bad", text)


def _never(items: list[Collapse]) -> Sentence:
    names = ", ".join(f"{item.name} ({_EVIDENCE[item.evidence]} {100 * (item.expected or 0):.1f} %)" for item in items)
    return Sentence("neutral", f"Predicted hardly anywhere on {items[0].target}: {names}.")


_EVIDENCE = {"source-only": "source-only predicted", "labels": "the labels have", "source": "the source has"}
