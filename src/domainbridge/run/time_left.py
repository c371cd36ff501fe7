"""The time left of a run, and the share of the run that is behind."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from domainbridge.run.work import Phase, Work

__all__ = ["TimeLeft"]

_MEMORY, _MEMORY_SHARE = 30.0, 0.1
"""Seconds over which the machine's present speed is averaged: at least so many, or this share of the time so far."""


@dataclass
class _Item:
    """A phase with its clock."""

    work: Work
    done: int
    began: float | None = None
    ended: float | None = None
    last: float | None = None
    counted: int = 0
    seconds: float = 0.0


class TimeLeft:
    """The time that a start still takes, from the seconds per unit that this start has measured.

    A kind of phase that is not measured yet gets the seconds of earlier starts, or its relative cost at the rate of
    what is measured. What a phase takes beside its units (loading a model, starting loader processes, writing) is
    measured per phase. Other programs change the speed of a machine: the latest units, by the seconds that they usually
    take, give a factor of all that is left.
    """

    def __init__(self, work: Sequence[Work], clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.items = [_Item(part, part.first) for part in work]
        self.current = 0
        self.began = clock()
        self.latest_seconds = self.usual_seconds = _MEMORY

    def begin(self, stage: str) -> None:
        """A stage begins: its first phase starts now."""
        for number, item in enumerate(self.items):
            if item.work.stage == stage and item.began is None:
                self._enter(number)
                return

    def advance(self, stage: str, phase: Phase, done: int) -> None:
        """So many units of a phase are done."""
        number = next((n for n, i in enumerate(self.items) if (i.work.stage, i.work.phase) == (stage, phase)), None)
        if number is None:
            return
        if number != self.current or self.items[number].began is None:
            self._enter(number)
        item, now = self.items[number], self.clock()
        done = min(done, item.work.units)
        if done <= item.done:
            return
        if item.last is not None:  # the first unit also waits for loaders and caches
            self._count(item, done - item.done, now - item.last)
        item.done, item.last = done, now

    def share(self) -> float:
        """Of the whole time, 0 .. 1."""
        passed, left = self.clock() - self.began, self.seconds()
        if left is None:
            return 0.0
        return passed / (passed + left) if passed + left > 0 else 1.0

    def seconds(self) -> float | None:
        """Left for everything; None before anything is known."""
        rates, beside = self._seconds_per_unit(), self._seconds_beside()
        open_items = [item for item in self.items if item.ended is None]
        if any(item.work.kind not in rates for item in open_items):
            return None
        now = self.clock()
        return sum(
            _left(item, rates[item.work.kind], beside.get(item.work.kind, beside.get("", 0.0)), now)
            for item in open_items
        )

    @property
    def phase(self) -> Work | None:
        """The present one; None when there is nothing to do."""
        return self.items[self.current].work if self.items else None

    @property
    def units_done(self) -> int:
        """Of the present phase."""
        return self.items[self.current].done if self.items else 0

    def _enter(self, number: int) -> None:
        now = self.clock()
        for earlier in self.items[:number]:
            if earlier.ended is None:
                earlier.ended, earlier.done = now, earlier.work.units
        self.items[number].began = now
        self.current = number

    def _count(self, item: _Item, units: int, seconds: float) -> None:
        """Take in units, and what they took beside what they usually take."""
        usual = self._mean_seconds(item.work.kind)
        if usual is not None:
            memory = max(_MEMORY, _MEMORY_SHARE * (self.clock() - self.began))
            keep = math.exp(-units * usual / memory)
            self.latest_seconds = keep * self.latest_seconds + seconds
            self.usual_seconds = keep * self.usual_seconds + units * usual
        item.counted += units
        item.seconds += seconds

    def _mean_seconds(self, kind: str) -> float | None:
        """Per unit of a kind in this start; None before any is measured."""
        same = [item for item in self.items if item.work.kind == kind]
        counted = sum(item.counted for item in same)
        return sum(item.seconds for item in same) / counted if counted else None

    def _seconds_per_unit(self) -> Mapping[str, float]:
        """By kind: measured, of earlier starts, or by cost; empty before anything is measured."""
        rates: dict[str, float] = {}
        cost = seconds = 0.0
        factor = self.latest_seconds / max(self.usual_seconds, 1e-9)
        for kind in dict.fromkeys(item.work.kind for item in self.items):
            same = [item for item in self.items if item.work.kind == kind]
            mean, earlier = self._mean_seconds(kind), same[0].work.seconds
            if mean is not None:
                rates[kind], units = mean * factor, sum(item.counted for item in same)
            elif earlier is not None:
                rates[kind], units = earlier, 1
            else:
                continue
            cost += units * same[0].work.cost
            seconds += units * rates[kind]
        if cost:
            for item in self.items:
                rates.setdefault(item.work.kind, item.work.cost * seconds / cost)
        return rates

    def _seconds_beside(self) -> Mapping[str, float]:
        """By kind: seconds of an ended phase beside its units; under "" the mean over kinds."""
        beside: dict[str, list[float]] = {}
        for item in self.items:
            if item.began is not None and item.ended is not None:
                first_unit = item.seconds / item.counted if item.counted else 0.0
                seconds = item.ended - item.began - item.seconds - first_unit
                beside.setdefault(item.work.kind, []).append(max(seconds, 0.0))
        means = {kind: sum(values) / len(values) for kind, values in beside.items()}
        return means | ({"": sum(means.values()) / len(means)} if means else {})


def _left(item: _Item, rate: float, beside: float, now: float) -> float:
    """Seconds left of a phase: of its units, and of what is beside them."""
    units = (item.work.units - item.done) * rate
    if item.began is None:
        return units + beside
    idle = now - item.last if item.last is not None and units else 0.0
    spent_beside = now - item.began - item.seconds - idle
    return max(units - min(idle, rate), 0.0) + max(beside - spent_beside, 0.0)
