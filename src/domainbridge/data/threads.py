"""Work in threads with results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["MOST_THREADS", "in_threads", "usable_cores"]

MOST_THREADS = 16
_WAITING_BYTES = 512 * 2**20
"""Bytes of results that may wait to be used; at least one result is computed ahead."""

Result = TypeVar("Result")


def usable_cores() -> int:
    """CPU cores that this process may use: a cluster gives a job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    work: Callable[[int], Result], indices: Iterable[int], size: Callable[[Result], int] | None = None
) -> Iterator[Result]:
    """``work(index)`` for each index, in the order of the indices; threads compute the next few results ahead.

    Args:
        work: called in threads.
        indices: in the order of the results.
        size: bytes of a result, for results that may be large: fewer of these are computed ahead, as many as the
            largest one so far allows.
    """
    threads = min(usable_cores(), MOST_THREADS)
    most, largest = 2 * threads, 0
    ahead = most if size is None else 1
    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending: deque[Future[Result]] = deque()
        for index in indices:
            pending.append(pool.submit(work, index))
            while len(pending) > ahead:
                result = pending.popleft().result()
                if size is not None:
                    largest = max(largest, size(result))
                    ahead = max(1, min(most, _WAITING_BYTES // max(largest, 1)))
                yield result
        while pending:
            yield pending.popleft().result()
