"""Interleaved measurements: every way takes its turn in every round, so that a busy machine disturbs them alike."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles

__all__ = ["Figures", "interleaved", "peak_bytes", "resident_bytes"]

_STATUS = Path("/proc/self/status")
_MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD."""


@dataclass(frozen=True)
class Figures:
    """What one way of doing something costs.

    Attributes:
        seconds: wall clock, median of the rounds.
        spread: (third quartile - first) / median of the wall clock.
        cpu_seconds: of all threads, median of the rounds.
        peak_bytes: resident memory at the peak beyond what was there before; None when not measured.
    """

    seconds: float
    spread: float
    cpu_seconds: float
    peak_bytes: int | None = None

    def tree(self) -> dict[str, float | int | None]:
        """As plain values, rounded."""
        return {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(self).items()}


def interleaved(
    ways: Mapping[str, Callable[[], object]], *, rounds: int = 7, warm_ups: int = 1, memory: bool = True
) -> dict[str, Figures]:
    """Measure every way ``rounds`` times in turn, each round beginning with another one; then each one's memory."""
    for _ in range(warm_ups):
        for work in ways.values():
            work()
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            began, worked = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - worked)
    peaks = {name: peak_bytes(work) if memory else None for name, work in ways.items()}
    return {name: Figures(median(wall[name]), _spread(wall[name]), median(cpu[name]), peaks[name]) for name in names}


def peak_bytes(work: Callable[[], object]) -> int:
    """Resident memory at the peak of ``work`` beyond what was resident before. Linux only.

    glibc is told to return large blocks at once, or the blocks kept from before would hide what is needed.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 65_536)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = resident_bytes()
    work()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str = "VmRSS") -> int:
    """A memory figure of this process from the kernel: VmRSS now, VmHWM at the peak."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def _spread(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    first, _, third = quantiles(values, n=4)
    return (third - first) / median(values)
